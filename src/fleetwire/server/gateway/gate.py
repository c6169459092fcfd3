"""Who may greet now: so many at once, from whatever address, and fairly where that is too few.

A place is taken from the accepted socket to the end of the hello. Who says nothing would hold one
for `HELLO_WITHIN_S`, so whoever has most places that are silent gives way to who has fewer: the
oldest first, for a true agent says hello within milliseconds. Behind a proxy that is trusted the
address is the one that it forwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from fleetwire.core import limits
from fleetwire.core.shares import Shares, origin

TAKEN_PER_S: Final = 400.0
"""How many hellos a slow machine takes; appointments are given at this rate."""
LATER_S: Final = 1.0
LATEST_S: Final = 30.0


class Place:
    """The place of one that greets. `gave_way`: it was taken away before the hello came."""

    def __init__(self, holder: str) -> None:
        self.holder = holder
        self.gave_way = False
        self._limit: asyncio.Timeout | None = None

    def within(self, seconds: float) -> asyncio.Timeout:
        """Return the time for the hello; it ends at once where the place is given to another."""
        self._limit = asyncio.timeout(0 if self.gave_way else seconds)
        return self._limit

    def give_way(self) -> None:
        """End the wait for the hello."""
        self.gave_way = True
        if self._limit is not None:
            self._limit.reschedule(asyncio.get_running_loop().time())


class Gate:
    """Counts who greets, and gives appointments to those who are too many. `monotonic` is seconds.

    An appointment is when this one's turn would be, had all before it come in time.
    """

    def __init__(
        self, *, monotonic: Callable[[], float], at_once: int = limits.HELLOS_AT_ONCE
    ) -> None:
        self._monotonic = monotonic
        self._at_once = at_once
        self._greeting: set[Place] = set()
        self._silent: Shares[Place] = Shares()
        self._turn = 0.0

    def enter(self, address: str | None) -> Place | None:
        """Return a place for who comes from this address, None where there is none: then he is to
        come `later`. Call `heard` when the hello is there, and `passed` at the end.
        """
        holder = origin(address)
        if len(self._greeting) >= self._at_once:
            other = self._silent.to_give_way(holder)
            if other is None:
                return None
            self.passed(other)
            other.give_way()
        place = Place(holder)
        self._greeting.add(place)
        self._silent.add(holder, place)
        return place

    def later(self) -> float:
        """Return after how many seconds to come again."""
        now = self._monotonic()
        self._turn = max(self._turn, now + LATER_S) + 1 / TAKEN_PER_S
        return min(self._turn - now, LATEST_S)

    def heard(self, place: Place) -> None:
        """Its hello is there: the place is its own until that is answered."""
        self._silent.remove(place.holder, place)

    def passed(self, place: Place) -> None:
        """One that had come in has greeted, or has gone. Idempotent."""
        self._greeting.discard(place)
        self._silent.remove(place.holder, place)
