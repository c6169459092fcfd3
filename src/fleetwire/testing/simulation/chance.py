"""Chance from a seed: the only place of the simulation that makes any."""

from __future__ import annotations

import random  # noqa: TID251 - the one source of chance, made from a seed
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Chance:
    """A stream of decisions. `fork` gives an independent one, so that one more decision in one
    room does not change all of them in the others.
    """

    def __init__(self, seed: int | str) -> None:
        self._seed = seed
        self._random = random.Random(f"fleetwire {seed}")  # noqa: S311 - it is to repeat, not to be secret
        self.uniform = self._random.random

    def fork(self, name: str) -> Chance:
        """Return the stream of this name."""
        return Chance(f"{self._seed}/{name}")

    def odds(self, probability: float) -> bool:
        """Say yes with this probability."""
        return self.uniform() < probability

    def between(self, low: float, high: float) -> float:
        """Return a number of seconds (or of anything) in [low, high)."""
        return low + (high - low) * self.uniform()

    def whole(self, low: int, high: int) -> int:
        """Return a whole number from `low` to `high`, both included."""
        return self._random.randint(low, high)

    def pick(self, items: Sequence[T]) -> T:
        """Return one of the items."""
        return items[self._random.randrange(len(items))]

    def data(self, count: int) -> bytes:
        """Return so many bytes."""
        return self._random.randbytes(count)

    def delay(self, usual: float, longest: float) -> float:
        """Return a delay: mostly about `usual`, now and then anything up to `longest`."""
        if self.odds(0.02):
            return self.between(usual, longest)
        return usual * self.between(0.2, 2.0)
