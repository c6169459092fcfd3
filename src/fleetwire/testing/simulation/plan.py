"""How large a world is and what may fail in it, and how it went."""

from __future__ import annotations

import dataclasses
from collections import Counter

from fleetwire.testing.simulation.chance import Chance
from fleetwire.testing.simulation.database import CommitFate
from fleetwire.testing.simulation.faults import Faults


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """How large a world is and what may fail in it."""

    nodes: int = 1
    runs: int = 1
    busy_s: float = 10.0
    faults: frozenset[str] = frozenset()
    pause_s: float = 3.0
    chatty: bool = False
    commit_s: float = 0.002
    commit_faults: float = 0.0
    fates: tuple[CommitFate, ...] = ("refused", "unknown", "unknown-lost", "crash", "crash-done")
    doubling: float = 0.0
    drop_nudges: bool = False
    credit: int = 4 * 1024 * 1024
    restores: bool = False

    @staticmethod
    def of(seed: int) -> Plan:
        """Return the plan of a seed."""
        chance = Chance(f"plan {seed}")
        some = frozenset(kind for kind in sorted(Faults.KINDS) if chance.odds(0.5))
        return Plan(
            nodes=chance.pick((1, 2, 2, 3, 4)),
            runs=chance.whole(3, 8),
            busy_s=chance.between(3.0, 14.0),
            faults=some,
            pause_s=chance.pick((0.2, 0.7, 2.0)),
            chatty=chance.odds(0.1),
            commit_s=chance.pick((0.002, 0.002, 0.05)),
            commit_faults=chance.pick((0.0, 0.02, 0.1)),
            doubling=chance.pick((0.0, 0.0, 0.0, 0.05)),
            drop_nudges=chance.odds(0.15),
            credit=chance.pick((4 * 1024 * 1024, 6000)),
            restores=chance.odds(0.2),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Story:
    """How a world went."""

    seed: int
    violation: str | None
    steps: int
    virtual_s: float
    faults: Counter[str]
    starts: int
    trace: tuple[str, ...]
