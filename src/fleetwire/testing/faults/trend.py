"""Whether a measure of a process that lives on is flat: pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Final

import msgspec

WARM_UP_S: Final = 300.0
"""A process that has just begun is still growing to its size: under steady load SQLite's page
caches are full, and malloc's arenas level, after four minutes (docs/reliability.md)."""
LEAST_S: Final = 300.0
LEAST_SAMPLES: Final = 9
"""Three in each third: a median of fewer is one look, which noise would decide."""


class Sample(msgspec.Struct, frozen=True):
    """One look at a process: seconds since the begin, then its size. `memory` is what is its own in
    bytes, in memory or swapped: what it shares with others changes with who else runs.
    """

    at: float
    memory: int
    descriptors: int
    threads: int


MEASURES: Final = {"memory": 4 << 20, "descriptors": 4, "threads": 2}
"""What a measure may grow between the first and the last third of a life and still be flat."""


def growth(samples: Sequence[Sample], measure: str) -> float | None:
    """Return by how much the median of the last third is above that of the first third, after the
    warm-up; None for a life that is too short to say.
    """
    if not samples:
        return None
    begin = samples[0].at + WARM_UP_S
    settled = [sample for sample in samples if sample.at >= begin]
    if len(settled) < LEAST_SAMPLES or settled[-1].at - settled[0].at < LEAST_S:
        return None
    third = len(settled) // 3
    first = median(getattr(sample, measure) for sample in settled[:third])
    last = median(getattr(sample, measure) for sample in settled[-third:])
    return float(last - first)


def steep(samples: Sequence[Sample]) -> list[str]:
    """Return the measures that are not flat, with their growth.

    What grows by less than a tenth within an hour is flat, whatever the process is; so are the
    few bytes of MEASURES, which noise would pass.
    """
    found = []
    for measure, allowed in MEASURES.items():
        grown = growth(samples, measure)
        if grown is None:
            continue
        size = getattr(samples[-1], measure)
        if grown > max(allowed, size / 10):
            found.append(f"{measure} grew by {grown:.0f} to {size}")
    return found
