"""Rounds that kill a process at the k-th system call of what it does for some tasks, for every k.

The server dies in the middle of submit, commit, append and answer; the agent, the spawner and the
shim in the middle of a start, of output, of an end. k grows by one each round until nothing is
touched any more: then all points have been tried.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import psutil

from fleetwire.testing.faults.stage import NotRun, Stage
from fleetwire.testing.faults.tasks import ENDLESS, Task
from fleetwire.testing.faults.tracing import KILL, Tracer
from fleetwire.testing.lab import wait_until
from fleetwire.testing.simulation.chance import Chance

TASKS: Final = (
    Task(kind="short", lines=3),
    Task(kind="both", lines=40, both=True, code=7),
    Task(kind="failing", lines=200, size=1000, code=3),
    Task(kind="stopped", lines=ENDLESS, pause=0.02, stop_after=0.3, stray=True),
    Task(kind="deadline", lines=ENDLESS, pause=0.05, timeout=0.4),
)
"""A submission, output on both streams and of some size, a stop, a deadline."""

_FILES: Final = ("pwrite64", "fdatasync", "fsync", "ftruncate", "unlink", "rename")
_SENDS: Final = ("write", "writev", "sendmsg", "sendto")
_AGENT: Final = (
    "fsync", "fdatasync", "rename", "mkdir", "unlink", "unlinkat", "rmdir", "sendto", "sendmsg",
    "connect", "flock",
)  # fmt: skip
# None that the lab's tasks make themselves: they are followed as well.
_SHIM: Final = (
    "fsync", "fdatasync", "rename", "renameat", "renameat2", "link", "linkat", "ftruncate",
    "fallocate", "flock", "writev", "pwritev", "kill", "pidfd_send_signal", "sendto",
)  # fmt: skip
_SPAWNER: Final = (
    "clone", "clone3", "fork", "vfork", "socketpair", "sendto", "sendmsg", "write", "accept4",
    "wait4", "waitid", "flock", "fsync", "rename", "kill",
)  # fmt: skip


def record(stage: Stage) -> None:
    """The server dies at the k-th write, sync or rename of its database's files (SQLite)."""
    data = stage.system.lab.data
    paths = [data / f"fleetwire.db{end}" for end in ("", "-wal", "-shm", "-journal")]
    _server(stage, _FILES, paths)


def logs(stage: Stage) -> None:
    """The server dies at the k-th write, sync or rename of the day's log segment (SQLite)."""
    folder = stage.system.lab.data / "logs"
    stage.system.lab.client.wait(stage.system.lab.submit("echo the segment is there").id)
    segments = sorted(folder.glob("*.db"))
    ends = ("", "-wal", "-shm", "-journal")
    _server(stage, _FILES, [Path(f"{path}{end}") for path in segments for end in ends])


def answers(stage: Stage) -> None:
    """The server dies at the k-th write of its event loop: answers, frames, wake-ups."""
    _server(stage, _SENDS, (), follow=False)


def queries(stage: Stage) -> None:
    """The server dies at the k-th thing that it sends to PostgreSQL."""
    _server(stage, ("sendto",), ())


def agent(stage: Stage) -> None:
    """The agent dies at its k-th record, folder or frame."""
    system, name = stage.system, stage.system.names[0]
    _crash(stage, lambda: [system.lab.agents[name].pid], _AGENT, (), follow=True)


def shim(stage: Stage) -> None:
    """A shim dies at its k-th record, lock, piece of output or signal."""
    system, name = stage.system, stage.system.names[0]

    def spawner_and_spares() -> list[int]:
        spawner = _spawner_of(stage, name)
        return [spawner.pid, *(child.pid for child in spawner.children())]

    system.lab.client.wait(system.lab.submit("true").id)  # so that there is a spawner
    _crash(stage, spawner_and_spares, _SHIM, (), follow=True, of_shims=True)


def spawner(stage: Stage) -> None:
    """The spawner dies at its k-th fork, answer or burial."""
    system, name = stage.system, stage.system.names[0]
    system.lab.client.wait(system.lab.submit("true").id)

    def only() -> list[int]:
        return [_spawner_of(stage, name).pid]

    _crash(stage, only, _SPAWNER, (), follow=False)


def _spawner_of(stage: Stage, name: str) -> psutil.Process:
    def look() -> list[psutil.Process]:
        try:
            return [stage.system.lab.spawner(name)]
        except LookupError:
            return []

    return wait_until(look, "a spawner")[0]


def _server(
    stage: Stage, calls: Sequence[str], paths: Sequence[Path], *, follow: bool = True
) -> None:
    system = stage.system
    _crash(stage, lambda: [system.server.pid], calls, paths, follow=follow)


def _crash(
    stage: Stage,
    pids: Callable[[], list[int]],
    calls: Sequence[str],
    paths: Sequence[Path],
    *,
    follow: bool,
    of_shims: bool = False,
) -> None:
    if stage.k < 1:
        raise NotRun("crash points are counted from 1")
    system = stage.system
    stage.chance = Chance("crash points")  # the same each time: only k changes
    system.restore()
    log = system.folder / "strace"
    targets = pids()
    with (
        Tracer(targets, calls, KILL, str(stage.k), log, paths=paths, follow=follow) as tracer,
        stage.loaded(most=2, tasks=TASKS, shims_may_die=of_shims) as load,
    ):
        wait_until(lambda: load.done or tracer.touched, "the end of the tasks", within=90)
        tracer.stop()
        if tracer.touched:
            stage.did(f"killed at {tracer.last}", "crash-point")
            for daemon in (system.server, *system.lab.agents.values()):
                if daemon.pid in targets:
                    daemon.process.wait(20)  # all of its threads, and what they hold
            system.restore()
            load.wait_done()
        else:
            stage.measures["untouched"] = 1
    if of_shims and stage.outcomes["lost"] > max(1, tracer.touched):
        stage.broken.append(f"P6 {stage.outcomes['lost']} are lost, {tracer.touched} shims died")
