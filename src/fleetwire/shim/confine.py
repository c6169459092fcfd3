"""A task that is confined: another user, limits, a control group of its own.

`posix_spawn` (see `start`) cannot change the user, so such a task is forked and executed by hand:
the shim has one thread, so what runs between fork and exec may be Python. It costs 3 ms of CPU
more, and only who asks for it pays.

What is asked stands in the order (docs/seams.md, section 1): the agent has decided which limits a
control group keeps and which the process; here it is only done. What cannot be done ends the
start: a task never runs with less protection than its order says.
"""

import contextlib
import ctypes
import errno
import os
import resource
import signal
import sys
from typing import Any, NamedTuple, NoReturn

assert sys.platform != "win32", "shims need POSIX process trees"

from fleetwire.shim import tree
from fleetwire.shim.records import attempt_of, read_record

_PR_SET_NO_NEW_PRIVS = 38
# Looked up once, before any fork; elsewhere than on Linux there is no such thing.
_prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None
_ERROR_AT_MOST = 4096
_SIGNALS = sorted(set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP})


class NotConfined(OSError):
    """What was asked around the task cannot be had here; nothing of it runs."""


class Confinement(NamedTuple):
    """What the order asks. `uid` None: the user stays. `rlimits`: by name, without `RLIMIT_`.

    `cgroups`: folders to make, each with what to write into its files; the task joins all.
    """

    uid: int | None
    gid: int
    groups: list[int]
    umask: int
    rlimits: dict[str, int]
    cgroups: dict[str, dict[str, str]]

    @classmethod
    def from_record(cls, record: dict[str, Any] | None) -> "Confinement | None":
        """Read it from the order; raises KeyError, TypeError or ValueError."""
        if record is None:
            return None
        uid = record["uid"]
        return cls(
            uid=None if uid is None else int(uid),
            gid=int(record["gid"]),
            groups=[int(each) for each in record["groups"]],
            umask=int(record["umask"]),
            rlimits={str(name): int(value) for name, value in record["rlimits"].items()},
            cgroups={
                str(path): {str(file): str(value) for file, value in files.items()}
                for path, files in record["cgroups"].items()
            },
        )


def owner(confinement: Confinement | None) -> tuple[int, int] | None:
    """Return the user and group of the task; None where they are this process's."""
    if confinement is None or confinement.uid is None:
        return None
    return confinement.uid, confinement.gid


def prepare(confinement: Confinement) -> None:
    """Make the control groups, with their limits. Raises NotConfined, which names the file."""
    for path, files in confinement.cgroups.items():
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o755)
            for name, value in files.items():
                _write(os.path.join(path, name), value)
        except OSError as error:
            what = f"its control group {path} cannot be made: {error.strerror}"
            raise NotConfined(error.errno, what) from error


def execute(  # what posix_spawn is given, and what it cannot do
    program: str,
    argv: list[str],
    environment: dict[str, str],
    confinement: Confinement,
    descriptors: dict[int, int],
    terminal: str | None,
) -> int:
    """Fork, confine and execute; returns the pid. `descriptors`: ours, by the task's number; a
    `terminal` (its path) becomes 0, 1, 2 and the controlling one instead.

    Raises NotConfined with the reason that the child met, OSError when the program could not be
    executed; nothing runs then.
    """
    reader, writer = os.pipe()
    try:
        try:
            pid = os.fork()
            if pid == 0:
                _become(program, argv, environment, confinement, descriptors, terminal, writer)
        finally:
            os.close(writer)
        said = b""
        while len(said) < _ERROR_AT_MOST and (part := os.read(reader, _ERROR_AT_MOST)):
            said += part
    finally:
        os.close(reader)
    if not said:
        return pid
    os.waitpid(pid, 0)
    number, kind, what = said.decode(errors="replace").split(" ", 2)
    raise (OSError if kind == "exec" else NotConfined)(int(number), what)


def kill(confinement: Confinement | None) -> None:
    """Kill everything in the control groups in one step, where the kernel can."""
    if confinement is not None:
        for path in confinement.cgroups:
            _kill_group(path)


def release(confinement: Confinement | None) -> None:
    """Remove the control groups; nothing of the attempt lives any more."""
    if confinement is not None:
        _remove(confinement.cgroups)


def memory_counter(confinement: Confinement | None) -> str | None:
    """The file that counts the attempt's kills for want of memory; None where it has no group."""
    for path in confinement.cgroups if confinement is not None else ():
        for name in ("memory.events", "memory.oom_control"):
            file = os.path.join(path, name)
            if os.access(file, os.R_OK):
                return file
    return None


def members(folder: str) -> list[tree.Process]:
    """Who lives in the control groups that the order in this folder names. Harms nobody: the
    folder may be a copy, and its order then names the groups of an attempt that lives elsewhere.
    """
    found: dict[int, tree.Process] = {}
    for path in _groups_of(folder):
        for pid in _pids(path):
            process = tree.living(pid)
            if process is not None:
                found[pid] = process
    return list(found.values())


def kill_left(folder: str) -> None:
    """Kill, where the kernel can do it in one step, who lives in the control groups of the
    attempt in this folder, whose shim is gone.
    """
    for path in _groups_of(folder):
        _kill_group(path)


def forget(folder: str) -> None:
    """Remove what is left of the attempt's control groups."""
    _remove(_groups_of(folder))


def _groups_of(folder: str) -> list[str]:
    found: Any = read_record(folder, "order") or {}
    for part in ("strict", "confine", "cgroups"):
        found = found.get(part) if isinstance(found, dict) else None
    # The last part is the attempt's id: no damaged order can name a group of somebody else.
    attempt = attempt_of(folder)
    return [path for path in found or () if os.path.basename(path) == attempt]


def _remove(groups: "list[str] | dict[str, dict[str, str]]") -> None:
    for path in groups:
        # Busy: a process is dying in it; whoever deletes the attempt's folder tries again.
        with contextlib.suppress(OSError):
            os.rmdir(path)


def _kill_group(path: str) -> None:
    # First nobody is born there any more: where the kernel has no `cgroup.kill` (version 1) what
    # forks faster than we look loses by that.
    for name, value in (("pids.max", "0"), ("cgroup.kill", "1")):
        with contextlib.suppress(OSError):  # it has no such file, or is gone
            _write(os.path.join(path, name), value)


def _pids(path: str) -> list[int]:
    try:
        with open(os.path.join(path, "cgroup.procs"), encoding="ascii") as file:
            return [int(line) for line in file]
    except OSError:
        return []


def _write(path: str, value: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    except OSError as error:
        raise OSError(error.errno, f"{path}: {error.strerror}") from error
    finally:
        os.close(fd)


def _become(  # the arguments of `execute`
    program: str,
    argv: list[str],
    environment: dict[str, str],
    confinement: Confinement,
    descriptors: dict[int, int],
    terminal: str | None,
    errors: int,
) -> NoReturn:
    """What the child does. It shares nothing with us but descriptors, which exec closes."""
    stage = "cannot begin"
    try:
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.setsid()
        stage = "cannot take its descriptors"
        _take(descriptors, terminal, confinement)
        stage = "cannot join its control group"
        for path in confinement.cgroups:
            _write(os.path.join(path, "cgroup.procs"), "0")
        os.umask(confinement.umask)
        stage = "cannot take its limits"
        for name, value in confinement.rlimits.items():
            if name != "AS":
                _limit(name, value)
        stage = f"cannot become user {confinement.uid}"
        if confinement.uid is not None:
            os.setgroups(confinement.groups)
            os.setresgid(confinement.gid, confinement.gid, confinement.gid)
            os.setresuid(confinement.uid, confinement.uid, confinement.uid)
        stage = "cannot forgo new privileges"
        if _prctl is not None and _prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        stage = "cannot take its limits"
        if "AS" in confinement.rlimits:  # last: we need some memory ourselves until exec
            _limit("AS", confinement.rlimits["AS"])
        stage = ""
        os.execve(program, argv, environment)  # noqa: S606 (what it is for)
    except OSError as error:
        kind, what = ("confine", f"{stage}: ") if stage else ("exec", "")
        os.write(errors, f"{error.errno} {kind} {what}{error.strerror}".encode())
    except Exception as error:  # noqa: BLE001 (it goes to the shim, which raises it)
        os.write(errors, f"{errno.EINVAL} confine {stage or 'cannot execute'}: {error}".encode())
    finally:
        os._exit(126)


def _take(descriptors: dict[int, int], terminal: str | None, confinement: Confinement) -> None:
    """Make them 0, 1 and 2, and the task's own: `> /dev/stderr` opens it anew, by its owner."""
    if terminal is not None:
        if confinement.uid is not None:
            os.chown(terminal, confinement.uid, -1)
        # The first terminal that a leader of a session opens controls it.
        fd = os.open(terminal, os.O_RDWR)
        descriptors = {0: fd, 1: fd, 2: fd}
    elif confinement.uid is not None:
        for fd in descriptors.values():
            os.fchown(fd, confinement.uid, confinement.gid)
    if 0 not in descriptors:
        descriptors = {0: os.open(os.devnull, os.O_RDONLY), **descriptors}
    for number, fd in descriptors.items():
        os.dup2(fd, number)  # ours are above 2, so none is overwritten before its turn


def _limit(name: str, value: int) -> None:
    which = getattr(resource, f"RLIMIT_{name}")
    _, hard = resource.getrlimit(which)
    most = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (most, most))
