"""The kinds of rounds: what each does, on which system, and what it needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from fleetwire.testing.faults import kills, namespace, network
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
    are k = 1, 2, ... until a round passes that was not touched. `alone`: only by
    name. `apart`: within network namespaces of its own.
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

    @property
    def says(self) -> str:
        """What it does, in a sentence."""
        return (self.play.__doc__ or "").partition("\n\n")[0].replace("\n    ", " ")


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
    )
}


def usual() -> list[Kind]:
    """Return the kinds that are played when none is named."""
    return [kind for kind in KINDS.values() if not kind.alone]


def listed() -> str:
    """Return the kinds with what they do, one a line."""
    return "".join(f"  {kind.name:<22} {kind.says}\n" for kind in KINDS.values())
