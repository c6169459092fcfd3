"""Whether the kernel killed for want of memory, as far as it tells.

Two witnesses. The count of kills in our own control group is cheap and needs no rights, but does
not say whom. The kernel's log names the process, but only some may read it. Neither is there on
every machine: then nobody knows, and nothing is claimed.
"""

import errno
import os
import re
import signal

_CGROUPS = "/proc/self/cgroup"
_V2, _V1 = "/sys/fs/cgroup", "/sys/fs/cgroup/memory"
_KILLED = re.compile(rb"Killed process (\d+)")
_DRIFT_S = 1.0  # the log's clock and CLOCK_MONOTONIC are not quite the same
_RECORDS_AT_MOST = 50_000
_SHELL_KILLED = 128 + signal.SIGKILL


def counter() -> str | None:
    """The file that counts the kills in this process's control group; None where there is none."""
    try:
        with open(_CGROUPS, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            found = f"{_V2}{path.rstrip('/')}/memory.events"
        elif "memory" in controllers.split(","):
            found = f"{_V1}{path.rstrip('/')}/memory.oom_control"
        else:
            continue
        if os.access(found, os.R_OK):
            return found
    return None


def kills(path: str | None) -> int | None:
    """How many processes were killed for want of memory, by that file (`oom_kill N` in it)."""
    if path is None:
        return None
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        for line in os.read(fd, 4096).splitlines():
            if line.startswith(b"oom_kill "):
                return int(line[9:])
    except (OSError, ValueError):
        return None
    finally:
        os.close(fd)
    return None


def grown(before: int | None, now: int | None) -> int:
    """How many kills there were between two looks; a count that fell is another group's."""
    if before is None or now is None:
        return 0
    return now - before if now >= before else now


def victims(since: float, log: str = "/dev/kmsg") -> frozenset[int]:
    """The pids that the kernel's log says were killed for want of memory since that moment of
    CLOCK_MONOTONIC, in seconds; none where the log may not be read.
    """
    try:
        fd = os.open(log, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return frozenset()
    found = set()
    try:
        for _ in range(_RECORDS_AT_MOST):
            try:
                record = os.read(fd, 8192)
            except OSError as error:
                if error.errno == errno.EPIPE:  # overwritten while we read: go on behind it
                    continue
                break  # EAGAIN: all is read
            if not record:
                break
            for line in record.splitlines():
                head, _, message = line.partition(b";")
                killed = _KILLED.search(message)
                if killed and _second(head) >= since - _DRIFT_S:
                    found.add(int(killed[1]))
    finally:
        os.close(fd)
    return frozenset(found)


def explain(
    pid: int, exit_code: int | None, number: int | None, *, grew: int, victims: frozenset[int]
) -> str | None:
    """What to say of a process that ended so by itself, or None. `grew` is how much the count of
    its own group grew while it lived; `victims` may live anywhere, so only its own pid counts.
    """
    if number != signal.SIGKILL and exit_code != _SHELL_KILLED:
        return None
    if pid in victims:
        return "out of memory: the kernel's OOM killer ended it"
    if not grew:
        return None
    some = "a process" if grew == 1 else f"{grew} processes"
    return f"most likely out of memory: the kernel's OOM killer ended {some} here meanwhile"


def looks_killed(exit_code: int | None, number: int | None) -> bool:
    """Whether an end is worth the look into the kernel's log."""
    return number == signal.SIGKILL or exit_code == _SHELL_KILLED


def _second(head: bytes) -> float:
    """The time of a record of the kernel's log: its third field, in microseconds."""
    fields = head.split(b",")
    return int(fields[2]) / 1e6 if len(fields) > 2 and fields[2].isdigit() else 0.0
