"""Links that flap: they come back, and go, and come back.

A node whose link came back five times within ten minutes is shown `unstable`, with the count and
since when, and stays so until it has come back at most once within ten minutes: so the word does
not flap with the link. Times are seconds of one process's monotonic clock: a restarted server
begins to count anew, and its own restart is nobody's flapping.
"""

from __future__ import annotations

from fleetwire.core import limits


def came_back(times: tuple[float, ...], now: float) -> tuple[float, ...]:
    """Return when a link came back lately, this time among them; only so many are kept as can be
    told from many.
    """
    return (*_within(times, now), now)[-limits.FLAPPING_COUNTED :]


def reconnects(times: tuple[float, ...], now: float) -> int:
    """Return how often it came back within the window."""
    return len(_within(times, now))


def flaps(was: bool, count: int) -> bool:
    """Say whether a link that came back `count` times within the window counts as flapping; `was`:
    it did so far.
    """
    return count >= limits.FLAPPING_RECONNECTS or (was and count > limits.STEADY_RECONNECTS)


def _within(times: tuple[float, ...], now: float) -> tuple[float, ...]:
    return tuple(at for at in times if now - at <= limits.FLAPPING_WITHIN_S)
