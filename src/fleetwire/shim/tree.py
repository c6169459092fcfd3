"""Processes as the operating system shows them: who lives, who descends from whom.

One file per platform; this one chooses. What they offer:

    boot_id() -> str                      an id of this boot; a pid means nothing across boots
    start_time(pid) -> int | None         when it started, in the platform's own unit
    become_subreaper() -> None            orphans among our descendants become our children
    living(pid) -> Process | None         it, or None when it is gone or a zombie
    descendants(pid) -> list[Process]     all below `pid` that live (zombies do not)
    survivors(attempt, pid, pid_start) -> list[Process]
                                          what is left of an attempt whose shim is gone
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterable

assert sys.platform != "win32", "shims need POSIX process trees"

if sys.platform == "linux":
    from fleetwire.shim.tree_linux import (
        Process,
        become_subreaper,
        boot_id,
        descendants,
        living,
        start_time,
        survivors,
    )
else:
    from fleetwire.shim.tree_ps import (
        Process,
        become_subreaper,
        boot_id,
        descendants,
        living,
        start_time,
        survivors,
    )

__all__ = [
    "Process",
    "become_subreaper",
    "boot_id",
    "descendants",
    "fall_back",
    "get_ahead",
    "kill_all",
    "kill_each",
    "living",
    "stand_out",
    "start_time",
    "survivors",
    "terminate",
]


_PRIORITY = -10


def terminate(processes: Iterable[Process]) -> None:
    """Ask each to end; one that is stopped (SIGSTOP) is woken, so that it can hear it."""
    for process in processes:
        _signal(process.pid, signal.SIGTERM)
        _signal(process.pid, signal.SIGCONT)


def kill_all(processes: Iterable[Process]) -> None:
    """Kill each of them, and the process groups they form.

    The kernel signals a group in one step that no fork can slip through, so a fork bomb that
    keeps its group dies at once. Groups of our own session hold no task (a task starts a session
    of its own), and a group never spans sessions, so no stranger can be in it.
    """
    ours = os.getsid(0)
    processes = list(processes)
    for group in {process.group for process in processes if process.session != ours}:
        try:
            os.killpg(group, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue  # gone meanwhile; or changed its user, and the next scan shows it again
    kill_each(processes)


def kill_each(processes: Iterable[Process]) -> None:
    """Kill each of them, and nobody else."""
    for process in processes:
        _signal(process.pid, signal.SIGKILL)


def stand_out() -> None:
    """Be heard in a crowd: a task that fills the machine must not keep us from stopping it.

    Where we may; and not where an administrator gave us another priority. What we fork and
    execute gets none of it (the kernel resets it).
    """
    if sys.platform == "linux" and os.getpriority(os.PRIO_PROCESS, 0) == 0:
        with contextlib.suppress(PermissionError):
            fall_back()
            os.setpriority(os.PRIO_PROCESS, 0, _PRIORITY)
        # Where the kernel shares the processors by session, that alone counts among our own.
        # Ours is the spawner's session; a task's is another.
        with contextlib.suppress(OSError), open("/proc/self/autogroup", "w") as file:
            file.write(str(_PRIORITY))


def get_ahead() -> None:
    """Run before everything else, where we may: what forks faster than we look must lose."""
    if sys.platform == "linux":
        with contextlib.suppress(PermissionError):  # then we race on equal terms
            os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))


def fall_back() -> None:
    """The opposite of `get_ahead`."""
    if sys.platform == "linux":
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))


def _signal(pid: int, number: signal.Signals) -> None:
    # By pid: our own children keep theirs until we reap them, and pids are not used again within
    # the microseconds between the scan and this.
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return  # as above
