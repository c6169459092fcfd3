"""The process tree from /proc (Linux)."""

import ctypes
import os
import sys
from typing import NamedTuple

assert sys.platform == "linux", "this file reads Linux's /proc"

_PR_SET_CHILD_SUBREAPER = 36
# Looked up once, before any fork: a shim that starts touches as little as possible.
_prctl = ctypes.CDLL(None, use_errno=True).prctl
_boot_id = ""
# Only a kernel without CONFIG_PROC_CHILDREN does not; then every look is a scan of all processes.
_lists_children = os.path.exists(f"/proc/self/task/{os.getpid()}/children")


class Process(NamedTuple):
    """One process at the moment of the scan. `start` is field 22 of /proc/PID/stat."""

    pid: int
    parent: int
    group: int
    session: int
    start: int


def boot_id() -> str:
    """The kernel's random id of this boot."""
    global _boot_id  # noqa: PLW0603 (it never changes; read before the spawner forks)
    if not _boot_id:
        _boot_id = _read("/proc/sys/kernel/random/boot_id").decode().strip()
    return _boot_id


def start_time(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None when there is none."""
    try:
        return int(_fields(pid)[19])
    except (FileNotFoundError, ProcessLookupError):
        return None


def become_subreaper() -> None:
    """Make orphans among our descendants our children: a double fork cannot escape.

    That gives an exact test as well: when `waitpid` says that we have no child, nothing of the
    tree lives.
    """
    if _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        code = ctypes.get_errno()
        raise OSError(code, f"cannot become a child subreaper: {os.strerror(code)}")


def living(pid: int) -> Process | None:
    """The process, or None when it is gone or a zombie."""
    return _living(pid)


def descendants(pid: int) -> list[Process]:
    """All processes below `pid` that live, parents before children."""
    found: list[Process] = []
    to_visit = _children(pid)
    seen = set(to_visit)
    while to_visit:
        child = to_visit.pop()
        process = _living(child)
        if process is not None:
            found.append(process)
        below = [each for each in _children(child) if each not in seen]
        seen.update(below)
        to_visit.extend(below)
    return found


def survivors(attempt: str, pid: int | None, pid_start: int | None) -> list[Process]:
    """What is left of an attempt whose shim is gone: never known by a pid alone.

    A process belongs to it when its environment carries the attempt's marker, when it is in the
    session of the attempt's first process (`pid`, which must still have started at `pid_start`),
    or when it descends from such a one. A session whose first process is gone proves nothing: its
    number may have been given anew.
    """
    marker = f"FLEETWIRE_ATTEMPT={attempt}".encode()
    session = pid if pid is not None and start_time(pid) == pid_start else None
    ours = os.getpid()
    found: dict[int, Process] = {}
    for each in _pids():
        process = _living(each)
        if process is None or each == ours:
            continue
        if (session is not None and process.session == session) or _carries(process.pid, marker):
            found[process.pid] = process
            for below in descendants(process.pid):
                found[below.pid] = below
    found.pop(ours, None)
    return list(found.values())


def _carries(pid: int, marker: bytes) -> bool:
    try:
        environment = _read(f"/proc/{pid}/environ")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False  # gone, or another user's, which no task of ours is
    return marker in environment.split(b"\0")


def _living(pid: int) -> Process | None:
    """The process, or None when it is gone or a zombie.

    A zombie with threads is alive: its main thread has left, the others run.
    """
    try:
        state, parent, group, session, *more = _fields(pid)
        if state in {b"Z", b"X"} and len(os.listdir(f"/proc/{pid}/task")) <= 1:
            return None
    except (FileNotFoundError, ProcessLookupError):
        return None
    return Process(pid, int(parent), int(group), int(session), int(more[15]))


def _children(pid: int) -> list[int]:
    """The children of all threads of a process, zombies included.

    The kernel may leave some out while others exit; it never shows an empty list where there is
    a child, so who repeats until nothing is found misses none.
    """
    if not _lists_children:
        return [each for each in _pids() if _parent(each) == pid]
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except (FileNotFoundError, ProcessLookupError):
        return []
    found: list[int] = []
    for thread in threads:
        try:
            found.extend(map(int, _read(f"/proc/{pid}/task/{thread}/children").split()))
        except (FileNotFoundError, ProcessLookupError):
            continue  # the thread ended
    return found


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _parent(pid: int) -> int | None:
    try:
        return int(_fields(pid)[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def _fields(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat from the third (state) on; the name may hold anything."""
    data = _read(f"/proc/{pid}/stat")
    return data[data.rindex(b")") + 2 :].split()


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 65536):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)
