"""What may be thrown away, and when. Pure rules; `server.loops.retention` carries them out.

Nothing that is not settled is ever touched (5.7): a run goes only when it has ended and all its
logs are sealed, or declared not to become so; a segment only when that holds of every attempt in
it, and the last of them ended long enough ago (5.10).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from fleetwire.core import limits
from fleetwire.core.ids import RANDOM_BYTES, make_id

US: Final = 1_000_000
DAY_US: Final = 24 * 3600 * US


class Keep(msgspec.Struct, frozen=True):
    """How long what is kept, in seconds: logs after the end of their attempt, runs after their
    end, events (what is told of nodes and of the whole system) after they happened.
    """

    logs_s: float = limits.KEEP_LOGS_S
    runs_s: float = limits.KEEP_RUNS_S
    events_s: float = limits.KEEP_EVENTS_S

    @property
    def reason(self) -> str:
        """What a reader of a deleted log is told."""
        return f"kept for {min(self.logs_s, self.runs_s) / 86400:g} days, which are over"


class Cutoffs(NamedTuple):
    """What ended before these moments (microseconds since 1970) may go."""

    logs: int
    runs: int
    events: int


def cutoffs(keep: Keep, now: int) -> Cutoffs:
    """Return until when to delete. A log never outlives its run: nobody could find it."""
    logs, runs, events = (
        now - round(seconds * US)
        for seconds in (min(keep.logs_s, keep.runs_s), keep.runs_s, keep.events_s)
    )
    return Cutoffs(logs, runs, events)


def run_may_go(*, ended_at: int | None, unsettled: int, cutoff: int) -> bool:
    """Say whether a run's rows may be deleted."""
    return ended_at is not None and unsettled == 0 and ended_at < cutoff


def segments_past(segments: Iterable[str], cutoff: int) -> list[str]:
    """Return the segments whose whole day lies before the cutoff, oldest first: no attempt that
    is made from now on is put there. Whether its attempts have ended is another question.
    """
    return sorted(segment for segment in segments if _begin(segment) + DAY_US <= cutoff)


def ids_of(segment: str) -> tuple[str, str]:
    """Return two ids between which lie those of all attempts made on a segment's day, with a day
    to spare on either side: ids are ordered by time, so that no index by segment is needed.
    """
    begin = _begin(segment)
    return (
        make_id(max(begin - DAY_US, 0), bytes(RANDOM_BYTES)),
        make_id(begin + 2 * DAY_US, b"\xff" * RANDOM_BYTES),
    )


def _begin(segment: str) -> int:
    day = dt.datetime.combine(dt.date.fromisoformat(segment), dt.time(), dt.UTC)
    return round(day.timestamp()) * US
