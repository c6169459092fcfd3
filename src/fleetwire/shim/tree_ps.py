"""The process tree from `ps`, for POSIX systems without Linux's /proc (macOS, the BSDs).

There is no subreaper there: an orphan of a double fork goes to init, and is found by its
environment, where `ps` shows it, or not at all.
"""

import subprocess
import zlib
from typing import NamedTuple


class Process(NamedTuple):
    """One process at the moment of the scan. `start` stands for its start time, in seconds."""

    pid: int
    parent: int
    group: int
    session: int
    start: int


def boot_id() -> str:
    """The time of the last boot as the system words it."""
    return _run("sysctl", "-n", "kern.boottime").strip()


def start_time(pid: int) -> int | None:
    """A number that stands for when the process started; None when there is none."""
    return next((process.start for process in _all() if process.pid == pid), None)


def become_subreaper() -> None:
    """Not offered by these systems."""


def living(pid: int) -> Process | None:
    """The process, or None when it is gone or a zombie."""
    return next((process for process in _all() if process.pid == pid), None)


def descendants(pid: int) -> list[Process]:
    """All processes below `pid` that live, parents before children."""
    everyone = _all()
    found: list[Process] = []
    above = {pid}
    while True:
        below = [each for each in everyone if each.parent in above]
        if not below:
            return found
        found.extend(below)
        above = {each.pid for each in below}


def survivors(attempt: str, pid: int | None, pid_start: int | None) -> list[Process]:
    """What is left of an attempt whose shim is gone: its first process, if that lives, its group,
    and whoever carries the attempt's marker; with all that descends from these.
    """
    marker = f"FLEETWIRE_ATTEMPT={attempt}"
    marked = {
        int(line.split(None, 1)[0])
        for line in _run("ps", "-A", "-E", "-ww", "-o", "pid=,command=").splitlines()
        if marker in line.split()
    }
    everyone = _all()
    group = next((each.group for each in everyone if (each.pid, each.start) == (pid, pid_start)), 0)
    found: dict[int, Process] = {}
    for process in everyone:
        if process.pid in marked or (group and process.group == group):
            found[process.pid] = process
            found.update((below.pid, below) for below in descendants(process.pid))
    return list(found.values())


def _all() -> list[Process]:
    """Everyone but zombies."""
    found = []
    listing = _run("ps", "-A", "-o", "pid=", "-o", "ppid=", "-o", "pgid=", "-o", "stat=,lstart=")
    for line in listing.splitlines():
        pid, parent, group, state, started = line.split(None, 4)
        if not state.startswith("Z"):
            # The group stands for the session, which not every `ps` shows.
            start = zlib.crc32(started.encode())
            found.append(Process(int(pid), int(parent), int(group), int(group), start))
    return found


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
