"""The spawner: a small process that forks a shim per attempt, and outlives the agent.

A fork of this warm process takes about a millisecond where a fresh interpreter takes forty. It
does nothing else that could fail: no state of its own, no thread, one loop. When it is killed,
the shims go on; the agent starts another one, and buries what no spawner saw die.

It is the subreaper above its shims. A living shim is the subreaper of its own tree, so whatever
becomes a child of the spawner without being a shim is left over from a shim that was killed.
"""

import gc
import json
import os
import signal
import socket
import sys
import time
from typing import Any, NamedTuple, NoReturn

assert sys.platform != "win32", "shims need POSIX process trees"

from fleetwire.shim import attempt as attempts
from fleetwire.shim import tree
from fleetwire.shim.burial import close_grave, end_left, judge
from fleetwire.shim.control import ControlServer, listen
from fleetwire.shim.locks import open_folder, take_lock
from fleetwire.shim.loop import Loop, wake_on_child_death
from fleetwire.shim.records import write_record

SOCKET = "spawner.sock"
LEAVE_AFTER_S = 1.0
SPARE_FOR_S = 10.0
MOST_SPARE = 16
_BURY_PAUSE_S = 0.005
_LINE = 3  # a shim's descriptor of its line to the spawner
_ID_CHARACTERS = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_")


class Shim(NamedTuple):
    """A forked process that lives attempts, one after the other; `line` leads to it."""

    pid: int
    line: socket.socket


class Spawner:
    """Serves `spawner.sock` of one state directory (docs/seams.md, "The spawner").

    A shim whose attempt has its last record, and of which nothing is left, is kept for a while
    and given the next attempt. That is no shortcut in the rules (it takes the lock, writes
    `epoch` and so on as a fresh one does), but it saves the page faults of a fork: measured, an
    attempt costs a third of the CPU.
    """

    def __init__(self, state: str, listener: socket.socket) -> None:
        self._spool = os.path.join(state, "spool")
        self._loop = Loop()
        self._server = ControlServer(listener, self._loop, self._answer)
        self._shims: dict[int, Shim] = {}
        self._living: dict[int, str] = {}  # pid of a shim: the attempt it lives now
        self._spare: list[tuple[float, Shim]] = []  # since when; the most recent last
        self._graves: list[str] = []  # attempts whose shim ended without a last record
        self._idle_since = time.monotonic()
        self._leaving = False

    def serve(self) -> None:
        """Until asked to leave, or until no agent is connected and no attempt lives."""
        while not self._leaving:
            self._loop.turn(self._wait_s())
            now = time.monotonic()
            self._reap()
            if self._graves:
                self._bury()
            self._dismiss(now - SPARE_FOR_S)
            if self._living or self._graves or self._server.connected:
                self._idle_since = now
            elif now - self._idle_since >= LEAVE_AFTER_S:
                return

    def _wait_s(self) -> float | None:
        if self._graves:
            return _BURY_PAUSE_S
        if self._living or self._server.connected:
            return SPARE_FOR_S if self._spare else None
        return LEAVE_AFTER_S / 4

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        match request.get("do"):
            case "start":
                return {"pid": self._start(str(request["attempt"]))}
            case "ping":
                return {"pid": os.getpid(), "living": len(self._living)}
            case "leave":
                self._leaving = True
                return {}
            case other:
                raise ValueError(f"unknown request {json.dumps(other)}")

    def _start(self, attempt: str) -> int:
        folder = os.path.join(self._spool, attempt)
        if not attempt or not _ID_CHARACTERS.issuperset(attempt) or not os.path.isdir(folder):
            raise ValueError(f"{attempt!r} has no folder in the spool")
        shim = self._reuse(folder) or self._fork(folder)
        self._living[shim.pid] = attempt
        return shim.pid

    def _reuse(self, folder: str) -> Shim | None:
        while self._spare:
            _, shim = self._spare.pop()
            try:
                shim.line.sendall(folder.encode())
            except ConnectionError:
                continue  # it was killed while it waited; to be reaped
            return shim
        return None

    def _fork(self, folder: str) -> Shim:
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            _be_a_shim(theirs, folder)
        theirs.close()
        shim = Shim(pid, ours)
        self._shims[pid] = shim
        self._loop.watch(ours.fileno(), lambda: self._hear(shim))
        return shim

    def _hear(self, shim: Shim) -> None:
        """A shim says that its attempt has its last record, and waits for another; or it ends."""
        try:
            word = shim.line.recv(1)
        except ConnectionError:
            word = b""
        if not word:
            self._loop.forget(shim.line.fileno())  # what it leaves is seen when it is reaped
            return
        self._living.pop(shim.pid, None)
        self._spare.append((time.monotonic(), shim))
        if len(self._spare) > MOST_SPARE:
            self._let_go(self._spare.pop(0)[1])

    def _dismiss(self, before: float) -> None:
        """Let the spare shims go that nobody has needed since `before`."""
        while self._spare and self._spare[0][0] < before:
            self._let_go(self._spare.pop(0)[1])

    def _let_go(self, shim: Shim) -> None:
        self._loop.forget(shim.line.fileno())
        shim.line.close()  # it ends when it reads that

    def _reap(self) -> None:
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            shim = self._shims.pop(pid, None)
            if shim is None:
                continue  # an orphan of a dead shim
            self._spare = [each for each in self._spare if each[1] is not shim]
            if shim.line.fileno() >= 0:
                self._let_go(shim)
            attempt = self._living.pop(pid, None)
            if attempt is not None:
                self._graves.append(attempt)  # which may turn out to need no burial

    def _bury(self) -> None:
        """One round: kill what dead shims left to us; write `lost` once nothing is found."""
        orphans = self._orphans()
        if orphans:
            tree.get_ahead()
            tree.kill_all(orphans)
            return
        tree.fall_back()
        self._graves = [attempt for attempt in self._graves if not self._close_grave(attempt)]

    def _orphans(self) -> list[tree.Process]:
        """Our descendants that are neither a shim nor below one."""
        spared = set(self._shims)
        found = []
        for process in tree.descendants(os.getpid()):  # parents come before children
            if process.pid in spared or process.parent in spared:
                spared.add(process.pid)
            else:
                found.append(process)
        return found

    def _close_grave(self, attempt: str) -> bool:
        """Whether the attempt needs no further look."""
        folder = os.path.join(self._spool, attempt)
        try:
            directory = take_lock(folder)
        except FileNotFoundError:
            return True  # the agent has forgotten it meanwhile
        if directory is None:
            return False
        try:
            reason = judge(directory, folder)
            if reason is None:
                return True
            if end_left(folder):
                return False
            close_grave(directory, folder, reason)
        except OSError as error:
            print(f"{attempt}: lost could not be written: {error}", file=sys.stderr, flush=True)  # noqa: T201 (the log)
            return True  # the agent judges the folder again when it looks at it
        finally:
            os.close(directory)
        return True


def _be_a_shim(line: socket.socket, folder: str) -> NoReturn:
    """What a fork does: live the attempt in `folder`, then others as they are told, then end.

    The process ends with the first attempt that did not go by the book: then the spawner judges.
    """
    try:
        # What stands now is never collected: a socket object of the spawner would close a
        # descriptor that means something else here. It keeps the shared pages shared, too.
        gc.freeze()
        os.dup2(line.fileno(), _LINE, inheritable=False)
        tree.stand_out()
        os.closerange(_LINE + 1, os.sysconf("SC_OPEN_MAX"))
        while folder and attempts.run(folder):
            folder = _next_folder()
    except BaseException:  # noqa: BLE001 (the process ends here; what it says is in the log)
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(0)


def _next_folder() -> str:
    """Say that nothing is left to be done, and wait for another attempt; "" when none comes."""
    try:
        os.write(_LINE, b".")
        return os.read(_LINE, 4096).decode()
    except ConnectionError:
        return ""  # the spawner was killed meanwhile


def main(arguments: list[str]) -> int:
    """Start the spawner of the state directory and return; it goes on in the background."""
    if len(arguments) != 1:
        print("usage: python -m fleetwire.shim STATE_DIR", file=sys.stderr)  # noqa: T201
        return 2
    state = os.path.abspath(arguments[0])
    os.umask(0o077)
    os.makedirs(os.path.join(state, "spool"), mode=0o700, exist_ok=True)
    os.makedirs(os.path.join(state, "logs"), mode=0o700, exist_ok=True)
    lock = take_lock(os.path.join(state, "spool"))
    if lock is None:
        return 0  # one is there already
    directory = open_folder(state)
    listener = listen(directory, state, SOCKET)
    pid = os.fork()
    if pid:
        identity = {"pid": pid, "start": tree.start_time(pid), "boot_id": tree.boot_id()}
        write_record(state, "spawner.json", identity, sync=False)
        return 0
    _detach(state)
    tree.become_subreaper()
    tree.stand_out()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        # Whoever ends a whole service or session at once ends the tasks with it; we stay to
        # record how they ended, and leave by ourselves after that.
        signal.signal(number, signal.SIG_IGN)
    wake_on_child_death()
    spawner = Spawner(state, listener)
    gc.collect()
    gc.freeze()  # what stands now is never looked at again: its pages stay shared with the shims
    spawner.serve()
    return 0


def _detach(state: str) -> None:
    """Own session, no terminal, descriptors 0 to 2 on /dev/null and the log."""
    os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    log = os.open(
        os.path.join(state, "logs", "spawner.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600
    )
    for fd, target in ((null, 0), (null, 1), (log, 2)):
        os.dup2(fd, target)
    for fd in (null, log):
        if fd > 2:
            os.close(fd)
