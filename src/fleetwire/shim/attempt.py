"""One attempt, from the lock to the exit record: the life of a shim.

                    exec            first process ends              nothing lives
    locked ─► epoch ───► running ─────────────────────► clearing ─────────────► drained ─► exit
                            │                               ▲
                            │ stop, deadline, quota: TERM   │
                            └────────► ending ──────────────┘  (grace over: KILL, until empty)

The first cause wins: a process that ended by itself before the stop began has `exited`, whatever
comes later (promise P4). "Nothing lives" is the kernel's word: we are the subreaper of the tree,
so `waitpid` without children says it exactly, and no scan can be raced.
"""

import base64
import contextlib
import functools
import json
import math
import os
import sys
import time
from typing import Any

assert sys.platform != "win32", "shims need POSIX process trees"

from fleetwire.shim import confine, delivery, oom, pty, tree
from fleetwire.shim.control import NAME as CONTROL
from fleetwire.shim.control import ControlServer, listen
from fleetwire.shim.locks import take_lock
from fleetwire.shim.loop import Loop
from fleetwire.shim.masking import Patterns
from fleetwire.shim.order import Order, OrderError, secrets_folder
from fleetwire.shim.pump import LOOK_AGAIN_S, Pump
from fleetwire.shim.records import (
    LAST_RECORDS,
    attempt_of,
    create_record_at,
    note_in_reserve,
    open_record,
    read_record,
    set_reserve_aside,
    write_last_record_at,
    write_record_at,
)
from fleetwire.shim.start import ExecFailed, Started, start
from fleetwire.shim.stdin import Input
from fleetwire.shim.writer import SpoolWriter

LOCK_PATIENCE_S = 0.25  # whoever looks at the lock holds it for an instant
LINGER_S = 0.1  # `cmd > >(tee log)`: what reads the last bytes may end by itself
LEFTOVER_GRACE_S = 2.0
CROWD = 50  # processes of one task beyond which we do not wait for our turn among them
DRAIN_PATIENCE_S = 10.0  # how long the end of an output waits for a full disk
# What a task that is over at once has no use for is made only for one that has lived so long: the
# control socket, `started`, a look at the kernel's count of kills (who takes all memory takes
# longer). Each file is an inode to find and to give back, which is dear when many come and go.
LASTING_S = 0.05
_KILL_ROUND_S = 0.02
_KILL_PAUSE_S = 0.002


def run(folder: str) -> bool:
    """Live the life of the attempt in this folder.

    Returns True when nothing is left to be done about it and this process is as it was before,
    ready for another; False when somebody has to judge the folder, or this process has changed
    too much. Raises OSError when the folder cannot be written; then too it is to be judged.

    Called in a process without other children or threads, whose loop SIGCHLD wakes, with
    descriptors 0 to 2 open.
    """
    directory = take_lock(folder, patience_s=LOCK_PATIENCE_S)
    if directory is None:
        return True  # another shim lives it
    try:
        if not LAST_RECORDS.isdisjoint(os.listdir(directory)):
            return True
        return _run(directory, folder)
    finally:
        os.chdir("/")
        os.close(directory)


def _run(directory: int, folder: str) -> bool:
    record: dict[str, Any] = {}
    try:
        fd, record = open_record(directory, "order")
        try:
            order = Order.from_record(record)
            if order.attempt != attempt_of(folder):
                raise OrderError("the order is another attempt's")
            if _is_stopped(folder, order):
                if os.path.exists(os.path.join(folder, "epoch")):
                    return False
                _remove_delivery(order.secrets)
                write_record_at(directory, "canceled", {"epoch": order.epoch, "at": _now_us()})
                return True
            os.chdir(order.cwd)
            tree.become_subreaper()
            set_reserve_aside(directory)
            if not _begin(directory, order, fd):
                return False
        finally:
            os.close(fd)
    except (OrderError, OSError) as error:
        _remove_delivery(secrets_folder(record, attempt_of(folder)))
        write_record_at(directory, "lost", _start_failed(error))
        return True
    with Loop() as loop:
        name, record, unchanged = _live(directory, folder, order, loop)
    write_last_record_at(directory, name, record)
    return unchanged


def _live(
    directory: int, folder: str, order: Order, loop: Loop
) -> tuple[str, dict[str, Any], bool]:
    """Start the task and see it to its end; the last record's name, the record, and whether this
    process is as it was. The secrets are gone when this returns.
    """
    unchanged = not order.secrets  # what has known a secret lives no other attempt
    try:
        try:
            given = delivery.take(order.secrets)
            delivery.place(order.secrets, given, confine.owner(order.confine))
        except OSError as error:
            return "lost", _start_failed(error), unchanged
        known = Patterns(each.value for each in given) if given else None
        attempt = Attempt(directory, folder, order, loop, known)
        try:
            task = start(order._replace(env={**order.env, **delivery.environment(given)}))
        except ExecFailed as error:
            return "exit", attempt.not_executed(error), unchanged
        except (OSError, ValueError) as error:  # ValueError: a value that no environment can hold
            return "lost", _start_failed(error), unchanged
        return "exit", attempt.live(task), unchanged and attempt.unchanged
    finally:
        confine.release(order.confine)
        _remove_delivery(order.secrets)


def _remove_delivery(folder: str) -> None:
    """Before the last record: whoever finds that one looks for no secrets any more."""
    if not delivery.remove(folder):
        print(f"{folder}: secrets could not be removed", file=sys.stderr, flush=True)  # noqa: T201 (the log)


def _begin(directory: int, order: Order, fd: int) -> bool:
    """Write `epoch`; False when it was begun before: never a second exec (promise P2).

    An order that names this boot says all that a judge of ours has to know.
    """
    identity = _identity(os.getpid())
    twin = fd if order.boot_id == identity["boot_id"] else None
    return create_record_at(directory, "epoch", {"epoch": order.epoch, **identity}, twin=twin)


def _is_stopped(folder: str, order: Order) -> bool:
    """Whether a stop was left in the folder."""
    stop = read_record(folder, "stop")
    return stop is not None and bool(stop.get("epoch", math.inf) >= order.epoch)


@functools.cache  # a process lives many attempts; a fork of it has another pid
def _identity(pid: int) -> dict[str, Any]:
    return {"pid": pid, "pid_start": tree.start_time(pid), "boot_id": tree.boot_id()}


def _start_failed(error: Exception) -> dict[str, Any]:
    return {"reason": f"start failed: {error}", "at": _now_us()}


class Attempt:
    """The attempt after its `epoch` is durable."""

    def __init__(
        self, directory: int, folder: str, order: Order, loop: Loop, known: Patterns | None = None
    ) -> None:
        self._directory = directory
        self._folder = folder
        self._order = order
        self._writer = SpoolWriter(directory, piece=order.piece, quota=order.quota)
        self._loop = loop
        self._pump = Pump(self._loop, self._writer, order.quota_policy, self._quota_reached, known)
        self._cause: str | None = None  # why it is being ended; None while it is not
        self._status: int | None = None  # wait status of the first process
        self._kill_at = math.inf
        self._linger_until = math.inf
        self._leftovers = 0
        self._rounds = 0
        self._term_s: float | None = None  # TERM and KILL of an end that was asked for
        self._kill_s: float | None = None
        self._lasting_at = math.inf  # when it will have lived LASTING_S
        self._listen_at = math.inf  # when listening is tried again
        self._control: ControlServer | None = None
        self._memory_counter: str | None = None
        self._memory_kills: int | None = None
        self._ahead = False
        self._over = False  # it wrote more than the node allows
        self._begun = time.monotonic()
        self._started_at = _now_us()

    def not_executed(self, error: ExecFailed) -> dict[str, Any]:
        """The `exit` record of an attempt whose program could not be executed."""
        return self._exit_record(None, error.exit_code, None, str(error))

    @property
    def unchanged(self) -> bool:
        """Whether this process may live another attempt: it has not stayed ahead of others."""
        return not self._ahead

    def live(self, task: Started) -> dict[str, Any]:
        """See the task, which has just started, to its end; return the `exit` record."""
        self._task = task
        self._note_started(task)
        self._deadline = self._begun + self._order.deadline_s
        self._lasting_at = self._begun + LASTING_S
        for fd, stream in self._task.outputs.items():
            self._pump.add(fd, stream)
        self._input = Input(self._loop, self._task.stdin, terminal=self._order.tty is not None)
        while self._reap():
            self._loop.turn(self._wait_s())
            now = time.monotonic()
            self._pump.turn(now)
            if self._order.most and self._writer.length > self._order.most:
                self._too_much()
            self._keep_time(now)
        self._drain()
        if self._control is not None:
            self._control.close()
        self._input.close()
        return self._result()

    def _note_started(self, task: Started) -> None:
        """Leave word of the task's first process where it costs no file: for who judges us."""
        self._started = {
            "pid": task.pid,
            "pid_start": tree.start_time(task.pid),
            "boot_id": tree.boot_id(),
            "at": self._started_at,
            "shim": os.getpid(),
        }
        # A disk that fails since `epoch` must not end the task it has just begun: without this
        # the worst that can be said later is `start unknown`.
        with contextlib.suppress(OSError):
            note_in_reserve(self._directory, self._started)

    def _last(self, now: float) -> None:
        """It has lived a while: be there for who wants to stop it, and say that it runs."""
        self._lasting_at = math.inf
        self._listen(now)
        with contextlib.suppress(OSError):  # a full disk: as above
            write_record_at(self._directory, "started", self._started, sync=False)
        self._memory_counter = confine.memory_counter(self._order.confine) or oom.counter()
        self._memory_kills = oom.kills(self._memory_counter)

    def _listen(self, now: float) -> None:
        self._listen_at = math.inf
        try:
            listener = listen(self._directory, self._folder, CONTROL)
        except OSError:  # a full disk
            self._listen_at = now + LOOK_AGAIN_S
        else:
            self._control = ControlServer(listener, self._loop, self._answer)
        # Listening comes before this look: an agent that leaves a stop and finds nobody listening
        # knows that we shall find it; else it tells us.
        if _is_stopped(self._folder, self._order):
            self._end("stopped", self._order.grace_s)

    def _reap(self) -> bool:
        """Collect who has ended; False when nothing of the attempt lives any more."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._task.pid:
                self._status = status
                now = time.monotonic()
                self._linger_until = now if self._cause else now + LINGER_S

    def _wait_s(self) -> float:
        at = min(
            self._pump.wake_at(),
            self._kill_at,
            self._linger_until,
            self._lasting_at,
            self._listen_at,
        )
        if self._status is None and self._cause is None:
            at = min(at, self._deadline)
        # A pump that has something to do every turn must not starve: never negative.
        return min(max(at - time.monotonic(), 0.0), 3600.0)

    def _keep_time(self, now: float) -> None:
        """Deadline, leftovers, and KILL when the grace is over."""
        if now >= self._lasting_at:
            self._last(now)
        if now >= self._listen_at:
            self._listen(now)
        if self._status is None:
            if now >= self._deadline:
                self._end("deadline", self._order.grace_s)
        elif now >= self._linger_until:
            self._linger_until = math.inf
            self._clear(now)
        if now >= self._kill_at:
            self._kill()

    def _end(self, cause: str, grace_s: float) -> None:
        """Begin to end the task: TERM for the whole tree now, KILL after the grace."""
        self._reap()
        kill_at = time.monotonic() + max(grace_s, 0.0)
        if self._cause is not None or self._status is not None:
            self._kill_at = min(self._kill_at, kill_at)  # sooner, never later
            return
        self._cause = cause
        self._kill_at = kill_at
        self._term_s = round(time.monotonic() - self._begun, 6)
        tree.get_ahead()  # for the one look: in a crowd it would take too long
        tree.terminate(self._living())
        if not self._ahead:
            tree.fall_back()

    def _clear(self, now: float) -> None:
        """The first process has ended: what is left of the tree has to end as well."""
        left = self._living()
        self._leftovers = len(left)
        self._kill_at = min(self._kill_at, now + LEFTOVER_GRACE_S)
        tree.terminate(left)

    def _kill(self) -> None:
        """KILL, again and again for a moment, then a turn of the loop; until nothing lives.

        What forks faster than one look takes shall not outrun it, so the round is tight; and
        from the second round on we run before everybody else, where we may.
        """
        self._rounds += 1
        if self._cause is not None and self._kill_s is None:
            self._kill_s = round(time.monotonic() - self._begun, 6)
        if self._rounds == 2:
            self._get_ahead()
        until = time.monotonic() + _KILL_ROUND_S
        confine.kill(self._order.confine)
        known: set[int] = set()
        while self._reap() and time.monotonic() < until:
            living = tree.descendants(os.getpid())
            tree.kill_all(living)
            pids = {each.pid for each in living}
            if pids <= known:
                break  # all have their signal; they need time to die, not more signals
            known |= pids
        # What is in the middle of a system call may take its time; no use in looking harder.
        self._kill_at = time.monotonic() + _KILL_PAUSE_S * min(self._rounds, 25)

    def _living(self) -> list[tree.Process]:
        living = tree.descendants(os.getpid())
        if len(living) > CROWD:
            self._get_ahead()
        return living

    def _get_ahead(self) -> None:
        self._ahead = True
        tree.get_ahead()

    def _drain(self) -> None:
        give_up = time.monotonic() + DRAIN_PATIENCE_S
        while not self._pump.drain(force=time.monotonic() >= give_up):
            self._loop.turn(0.1)
        self._writer.close()

    def _too_much(self) -> None:
        """More output than the node's own policy allows: the task is ended, and not asked."""
        if self._status is None and self._cause is None:
            self._over = True
            self._end("quota", self._order.grace_s)

    def _quota_reached(self) -> None:
        if self._status is None:
            self._end("quota", self._order.grace_s)

    def _result(self) -> dict[str, Any]:
        if self._status is None:
            raise AssertionError("the tree is empty, so its first process was reaped")
        code = os.waitstatus_to_exitcode(self._status)
        error = self._writer.error
        if self._pump.lost:
            error = f"the disk was full: the last {self._pump.lost} bytes of output were not stored"
        exit_code, number = (None, -code) if code < 0 else (code, None)
        if self._over and error is None:
            error = f"its output passed the {self._order.most} bytes that the node's policy allows"
        if error is None and self._cause is None and oom.looks_killed(exit_code, number):
            error = self._out_of_memory(exit_code, number)
        return self._exit_record(self._task.pid, exit_code, number, error)

    def _out_of_memory(self, exit_code: int | None, number: int | None) -> str | None:
        now = oom.kills(self._memory_counter)
        return oom.explain(
            self._task.pid,
            exit_code,
            number,
            grew=oom.grown(self._memory_kills, now),
            victims=oom.victims(self._begun),
        )

    def _exit_record(
        self, pid: int | None, exit_code: int | None, signal: int | None, error: str | None
    ) -> dict[str, Any]:
        return {
            "epoch": self._order.epoch,
            "pid": pid,
            "cause": self._cause or "exited",
            "exit_code": exit_code,
            "signal": signal,
            "at": _now_us(),
            "started_at": self._started_at,
            "duration_s": round(time.monotonic() - self._begun, 6),
            "length": self._writer.length,
            "sha256": self._writer.digest(),
            "leftovers": self._leftovers,
            "error": error,
            "term_s": self._term_s,
            "kill_s": self._kill_s,
        }

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what a request on the control socket asks (docs/seams.md, "control")."""
        match request.get("do"):
            case "stop":
                self._end("stopped", float(request.get("grace_s", self._order.grace_s)))
            case "resize":
                if self._task.terminal is None:
                    raise ValueError("the task has no terminal to resize")
                pty.resize(self._task.terminal, int(request["rows"]), int(request["cols"]))
            case "input":
                self._input.give(base64.b64decode(request["bytes"], validate=True))
            case "eof":
                self._input.end()
            case "quota":
                self._writer.quota = int(request["bytes"])
                self._pump.look_again(time.monotonic())
            case "trimmed":
                self._pump.look_again(time.monotonic())
            case "status":
                pass
            case other:
                raise ValueError(f"unknown request {json.dumps(other)}")
        return self._state()

    def _state(self) -> dict[str, Any]:
        return {
            "pid": self._task.pid,
            "cause": self._cause,
            "ended": self._status is not None,
            "blocked": self._pump.blocked,
            "length": self._writer.length,
            "stored_bytes": self._writer.stored_bytes,
            "quota": self._writer.quota,
        }


def _now_us() -> int:
    return time.time_ns() // 1000
