"""Room held back on a disk, so that what has to be written can be when the disk is full.

Two lines of defence (promises P15, P16). Below the *floor* of free space nothing that grows is
taken any more: what is left is for small writes that must not fail. What others write can pass
the floor; for that a *reserve* is held in a file. It is given away bit by bit, so that there is
always some *working* room, and taken again before anything may grow again.

          grows            |        small writes only         |       small writes, from the reserve
    ───────────────────────┼──────────────────────────────────┼──────────────────────────────────────
    free:               floor                              working                                 0
"""

from __future__ import annotations

from typing import Final, NamedTuple

from fleetwire.core import limits

# Of a small disk the reserve and the floor are these parts at most.
_RESERVE_PART: Final = 16
_FLOOR_PART: Final = 8
_STEPS: Final = 8


class Bounds(NamedTuple):
    """All in bytes. `working` is also the step in which the reserve is given away and taken."""

    reserve: int
    floor: int
    working: int


class Room(NamedTuple):
    """What the reserve should hold now, bytes, and whether there is room for what grows."""

    held: int
    grows: bool


def bounds(
    disk: int, *, reserve: int = limits.RESERVE_BYTES, floor: int = limits.FLOOR_BYTES
) -> Bounds:
    """Return the bounds for a disk of so many bytes; `reserve` and `floor` are those of a large
    one, by default a server's.
    """
    reserve = min(reserve, disk // _RESERVE_PART)
    return Bounds(reserve, min(floor, disk // _FLOOR_PART), max(1, reserve // _STEPS))


def decide(known: Bounds, *, free: int, held: int, grows: bool) -> Room:
    """Say what to hold back where `free` bytes are left beside a reserve of `held`.

    What had to stop growing goes on only when a quarter more than the floor is free: a disk that
    is just full must not let it come and go.
    """
    together = free + held
    hold = max(0, min(known.reserve, together - known.working))
    if hold < known.reserve:
        hold -= hold % known.working
    needed = known.floor if grows else known.floor + known.floor // 4
    return Room(hold, hold == known.reserve and together - hold >= needed)
