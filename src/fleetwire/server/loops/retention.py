"""Retention: deletes runs, logs and events that have been kept long enough. It exists because a
record that only grows ends with a full disk.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from fleetwire.core.retention import Keep, cutoffs, segments_past
from fleetwire.server.domain import retention
from fleetwire.server.logs.base import LogStore
from fleetwire.server.store.engine import Database

_log = structlog.get_logger()
_MIB: Final = 1024 * 1024


class RetentionLoop:
    """See the module. `clock` is microseconds since 1970."""

    name = "retention"
    topics: tuple[str, ...] = ()
    every_s = 600.0

    def __init__(
        self, database: Database, logs: LogStore, keep: Keep, *, clock: Callable[[], int]
    ) -> None:
        self._database = database
        self._logs = logs
        self._keep = keep
        self._clock = clock

    async def round(self) -> str:
        """Delete all that may go, in small steps, and give the disk its room back."""
        until = cutoffs(self._keep, self._clock())
        runs = await self._runs(until.runs)
        events = await self._events(until.events)
        segments, freed = await self._segments(until.logs)
        freed += await self._database.reclaim() if runs or events else 0
        if runs or events or segments:
            _log.info(
                "deleted what was kept long enough",
                runs=runs, events=events, segments=segments, freed_bytes=freed,
            )  # fmt: skip
        return (
            f"deleted {runs} runs, {events} events and the logs of {len(segments)} days; "
            f"{freed / _MIB:.1f} MiB of disk are free again"
        )

    async def _runs(self, cutoff: int) -> int:
        deleted = 0
        after: str | None = ""
        while after is not None:
            old = await self._database.read(partial(retention.old_runs, after=after, cutoff=cutoff))
            after = old.after
            left = old.runs
            while left:
                gone = await self._database.write(partial(retention.delete_runs, runs=left))
                deleted += gone
                left = left[gone:]
        return deleted

    async def _events(self, cutoff: int) -> int:
        deleted = 0
        while True:
            gone = await self._database.write(partial(retention.delete_events, before=cutoff))
            deleted += gone
            if gone < retention.ROWS_AT_ONCE:
                return deleted

    async def _segments(self, cutoff: int) -> tuple[list[str], int]:
        """Delete whole segments: a file each, so that their room is free at once."""
        sizes = await self._logs.segments()
        deleted = []
        for segment in segments_past(sizes, cutoff):
            if await self._database.read(
                partial(retention.segment_may_go, segment=segment, cutoff=cutoff)
            ):
                await self._logs.delete_segment(segment, self._keep.reason)
                deleted.append(segment)
        return deleted, sum(sizes[segment] for segment in deleted)
