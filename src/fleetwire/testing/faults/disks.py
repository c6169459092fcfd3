"""Rounds in which disks are full, slow, or fail (P8, P15, P16)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from fleetwire.client import Client, ClientError, RunRequest, Script, ServerFault
from fleetwire.testing.faults.small_disks import SmallDisks
from fleetwire.testing.faults.stage import Act, Stage
from fleetwire.testing.faults.tasks import Kind
from fleetwire.testing.faults.tracing import Tracer
from fleetwire.testing.lab import wait_until
from fleetwire.testing.simulation.chance import Chance

_KINDS: Final[tuple[Kind, ...]] = (
    "short", "failing", "streaming", "both", "stopped", "deadline"
)  # fmt: skip
_WRITES: Final = ("pwrite64", "fdatasync", "fsync", "ftruncate")
_NODE_WRITES: Final = ("writev", "fsync", "fdatasync", "fallocate", "rename")
_SEEN_WITHIN_S: Final = 15.0
_INJECTED: Final = ("Input/output error", "disk I/O error", "No space left", "disk is full")


def server_full(stage: Stage) -> None:
    """The server's disk is full for some seconds under load, then has room again."""
    system = _small(stage)
    data = system.lab.data

    def act() -> Act:
        chance = stage.chance.fork("fill")
        for _ in range(stage.times(2)):
            yield chance.between(0.5, 2.0)
            stage.did("the server's disk is full", "server-disk-full")
            system.fill(data)
            _refuses_runs(stage)
            _still_serves(stage)
            yield chance.between(1.0, 6.0)
            stage.did("it has room again")
            system.free(data)
            _takes_runs(stage)

    with stage.loaded(kinds=_KINDS):
        stage.play([act()])


def node_full(stage: Stage) -> None:
    """A node's disk is full for some seconds under load, then has room again."""
    system = _small(stage)

    def act(name: str) -> Act:
        chance = stage.chance.fork(name)
        state = system.lab.state(name)
        for _ in range(stage.times(2)):
            yield chance.between(0.5, 3.0)
            stage.did(f"the disk of {name} is full", "node-disk-full")
            system.fill(state)
            yield chance.between(0.5, 8.0)
            stage.did(f"{name} has room again")
            system.free(state)

    with stage.loaded(kinds=_KINDS):
        stage.play([act(name) for name in system.names])


def server_errors(stage: Stage) -> None:
    """Writes and syncs of the server's files fail or take long; where it ends, it is started."""
    system = stage.system
    data = system.lab.data
    stage.expected = _INJECTED

    def act() -> Act:
        chance = stage.chance.fork("errors")
        for _ in range(stage.times(5)):
            while not stage.server_serves():
                yield 0.1
            action, when = _action(chance)
            paths = _files_of_server(data) if chance.odds(0.7) else ()
            stage.did(f"{action} at {when} of the server", action.partition("=")[2])
            log = system.folder / "strace"
            with Tracer([system.server.pid], _WRITES, action, when, log, paths=paths):
                yield chance.between(0.5, 3.0)
            yield 0.5
            if not system.lives(system.server):
                stage.did("the server has ended by itself and is started again", "server-ended")
                system.lab.launch_server()

    with stage.loaded(kinds=_KINDS):
        stage.play([act()])
        if not system.lives(system.server):
            system.lab.launch_server()


def node_errors(stage: Stage) -> None:
    """Writes and syncs of agents, spawners and shims fail or take long."""
    system = stage.system
    # A shim that cannot write its last record says so there, and its spawner judges.
    stage.expected = (*_INJECTED, "spawner.log")

    def act(name: str) -> Act:
        chance = stage.chance.fork(name)
        for _ in range(stage.times(4)):
            yield chance.between(0.2, 1.5)
            action, when = _action(chance)
            pids = [system.lab.agents[name].pid]
            if chance.odds(0.7):
                pids = sorted({*system.shims(name).values()}) or pids
            stage.did(f"{action} at {when} of {name}", action.partition("=")[2])
            log = system.folder / f"strace-{name}"
            with Tracer(pids, _NODE_WRITES, action, when, log):
                yield chance.between(0.5, 3.0)

    with stage.loaded(kinds=_KINDS):
        stage.play([act(name) for name in system.names])


def _small(stage: Stage) -> SmallDisks:
    if not isinstance(stage.system, SmallDisks):
        raise TypeError("the round needs a system with small disks")
    return stage.system


def _action(chance: Chance) -> tuple[str, str]:
    action = chance.pick(("error=ENOSPC", "error=EIO", "error=EIO", "delay_enter=300000"))
    first = chance.whole(1, 12)
    return action, f"{first}..{first + chance.whole(0, 8)}"


def _files_of_server(data: Path) -> list[Path]:
    bases = [data / "fleetwire.db", *sorted((data / "logs").glob("*.db"))]
    return [Path(f"{path}{end}") for path in bases for end in ("", "-wal")]


def _refuses_runs(stage: Stage) -> None:
    """P15: a full disk is said with 507, and soon."""

    def refused() -> bool:
        try:
            _probe(stage)
        except ServerFault as fault:
            return fault.code == "storage-full"
        return False

    _within(stage, refused, "P15 a full disk of the server was not answered with 507")


def _takes_runs(stage: Stage) -> None:
    """P15: it recovers alone."""

    def taken() -> bool:
        try:
            _probe(stage)
        except ClientError:
            return False
        return True

    _within(stage, taken, "P15 it takes no runs although its disk has room again")


def _probe(stage: Stage) -> None:
    lab = stage.system.lab
    name = f"{stage.name}/probe"
    with Client(lab.url, lab.env["FLEETWIRE_TOKEN"], patience=0.0) as client:
        client.create_run(RunRequest(Script("true"), nodes=(stage.system.names[0],), name=name))


def _still_serves(stage: Stage) -> None:
    """P15: login and reading work; nodes stay online."""
    lab = stage.system.lab
    try:
        with Client(lab.url) as client:
            client.login("admin", (lab.data / "admin-password").read_text().strip())
        nodes = {node.name: node.link for node in lab.client.nodes()}
    except ClientError as error:
        stage.broken.append(f"P15 on a full disk a login or a list fails: {error}")
        return
    if away := [name for name, link in nodes.items() if link != "online"]:
        stage.broken.append(f"P15 on a full disk nodes are not online: {', '.join(away)}")


def _within(stage: Stage, look: Callable[[], bool], sentence: str) -> None:
    try:
        wait_until(look, sentence, within=_SEEN_WITHIN_S)
    except TimeoutError:
        stage.broken.append(sentence)
