"""The kinds of rounds: what each does, on which system, and what it needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, NamedTuple

from fleetwire.testing.faults import (
    crash_points,
    disks,
    kills,
    namespace,
    network,
    postgres,
    restoring,
    small_disks,
    soak,
    spools,
    tracing,
)
from fleetwire.testing.faults.small_disks import SmallDisks
from fleetwire.testing.faults.stage import Stage
from fleetwire.testing.faults.system import System


def _nothing() -> None:
    """It needs nothing that is not on every machine."""


def _usual(folder: Path, database: str | None) -> System:
    return System(folder, database=database)


class Kind(NamedTuple):
    """One kind of rounds.

    `setting` names the system it wants, which `system` makes; `shared`: the system may stay up for
    the next round. `needs` raises NotRun where something is missing. `enumerated`: its seeds
    are k = 1, 2, ... until nothing is touched any more. `alone`: only by
    name. `apart`: within network namespaces of its own. `database`: which one it is about.
    """

    name: str
    play: Callable[[Stage], None]
    setting: str = "usual"
    system: Callable[[Path, str | None], System] = _usual
    shared: bool = True
    needs: Callable[[], None] = _nothing
    enumerated: bool = False
    alone: bool = False
    apart: bool = False
    database: Literal["any", "sqlite", "postgres"] = "any"

    @property
    def says(self) -> str:
        """What it does, in a sentence."""
        return (self.play.__doc__ or "").partition("\n\n")[0].replace("\n    ", " ")


def _single(folder: Path, database: str | None) -> System:
    return System(folder, nodes=1, database=database)


def _small(folder: Path, database: str | None) -> System:
    return SmallDisks(folder, nodes=2, database=database)


def _crash(
    what: str,
    play: Callable[[Stage], None],
    database: Literal["any", "sqlite", "postgres"] = "any",
) -> Kind:
    return Kind(
        f"crash-points-{what}",
        play,
        "single",
        _single,
        needs=tracing.check,
        enumerated=True,
        database=database,
    )


KINDS: Final[dict[str, Kind]] = {
    kind.name: kind
    for kind in (
        Kind("agent-kill", kills.agent_kill),
        Kind("server-kill", kills.server_kill),
        Kind("spawner-kill", kills.spawner_kill),
        Kind("shim-kill", kills.shim_kill),
        Kind("all-kill", kills.all_kill),
        Kind("pause", kills.pause),
        Kind("network", network.network),
        Kind("drop", network.drop, needs=namespace.check, apart=True),
        Kind("disk-server-full", disks.server_full, "small", _small, needs=small_disks.check),
        Kind("disk-node-full", disks.node_full, "small", _small, needs=small_disks.check),
        Kind("disk-server-errors", disks.server_errors, needs=tracing.check),
        Kind("disk-node-errors", disks.node_errors, needs=tracing.check),
        Kind("restored", restoring.restored, shared=False, database="sqlite"),
        Kind("spool", spools.spool),
        Kind("postgres-backend-kill", postgres.backend_kill, database="postgres"),
        Kind("soak", soak.soak, alone=True),
        _crash("record", crash_points.record, "sqlite"),
        _crash("logs", crash_points.logs, "sqlite"),
        _crash("answers", crash_points.answers),
        _crash("queries", crash_points.queries, "postgres"),
        _crash("agent", crash_points.agent),
        _crash("shim", crash_points.shim),
        _crash("spawner", crash_points.spawner),
    )
}


def usual() -> list[Kind]:
    """Return the kinds that are played when none is named."""
    return [kind for kind in KINDS.values() if not kind.alone]


def listed() -> str:
    """Return the kinds with what they do, one a line."""
    return "".join(f"  {kind.name:<22} {kind.says}\n" for kind in KINDS.values())
