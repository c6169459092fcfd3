"""What the log store promises its callers: values, errors, and the `LogStore` protocol.

An attempt's log is one byte sequence (architecture 5.1): offsets and lengths count the payloads
of both streams in the order the shim read them, and the bytes of a gap, which were dropped and
stand nowhere. Lines are counted over that sequence: line n begins after the n-th newline byte.
"""

from __future__ import annotations

import datetime as dt
from typing import NamedTuple, Protocol

import msgspec

from fleetwire.core import limits
from fleetwire.core.chunks import Piece
from fleetwire.core.errors import FleetwireError

MAX_TEXT = limits.LOG_LINE_SHOWN_BYTES
"""Bytes of one line that `LogLine.text` and `LogMatch.text` hold at most."""

MAX_RESULT = limits.LOG_READ_BYTES
"""Bytes that one answer holds at most, however much was asked for."""


def segment_at(now: int) -> str:
    """Return the name of the segment of a time (microseconds since 1970): its day, UTC."""
    return dt.datetime.fromtimestamp(now / 1e6, dt.UTC).date().isoformat()


class LogGap(FleetwireError):
    """An append begins above the durable length, so bytes between them are missing."""

    code = "log-gap"

    def __init__(self, length: int) -> None:
        super().__init__(
            f"The log is durable up to byte {length}, and the chunk begins after it.",
            hint=f"Send from {length}.",
        )
        self.length = length


class StaleLink(FleetwireError):
    """A newer link of the same node has taken over (architecture 5.6)."""

    code = "stale-link"

    def __init__(self, node: str, link_epoch: int) -> None:
        super().__init__(
            f"Link {link_epoch} of node {node} was replaced by a newer one.",
            hint="Close it; the newer link goes on from the durable length.",
        )


class LogGone(FleetwireError):
    """The segment was deleted; `reason` says why (the API answers 410)."""

    code = "log-gone"

    def __init__(self, segment: str, reason: str) -> None:
        super().__init__(f"The logs of {segment} are gone: {reason}.")
        self.segment = segment
        self.reason = reason


class Appended(NamedTuple):
    """What an append has done: how long the log is now, in bytes, and how many bytes of the chunk
    were skipped, because as many were stored there already, by whomever.
    """

    length: int
    skipped: int = 0


class Chunk(msgspec.Struct, frozen=True):
    """Consecutive log bytes: `data` is the payload of the pieces that are no gaps, in order."""

    attempt: str
    offset: int
    data: bytes
    pieces: list[Piece]

    @property
    def length(self) -> int:
        """Log bytes covered, gaps included."""
        return sum(piece.length for piece in self.pieces)


class LogLine(msgspec.Struct, frozen=True):
    """One line without its newline: raw bytes, at most `MAX_TEXT`; `cut` says there are more.

    ``offset`` is the log offset of its first byte; ``stream`` and ``time_us`` are those of its
    first byte; ``gap`` counts the dropped bytes seen in it. With a stream filter only that
    stream's bytes count.
    """

    line: int
    offset: int
    stream: int
    time_us: int
    text: bytes
    cut: bool
    gap: int


class LogLines(msgspec.Struct, frozen=True):
    """Lines in order. ``next_line`` is where to go on, None where the log ends (so far).

    ``total_lines`` counts a last line without a newline too.
    """

    first_line: int
    lines: list[LogLine]
    total_lines: int
    next_line: int | None


class LogMatch(msgspec.Struct, frozen=True):
    """A line that holds the text: its number, the offset of its first byte, its beginning."""

    line: int
    offset: int
    text: bytes


class LogMatches(msgspec.Struct, frozen=True):
    """Matches in order. ``next_line`` is where to go on, None when all was searched."""

    matches: list[LogMatch]
    next_line: int | None


class LogStore(Protocol):
    """Where output lives, in segments of one day each.

    Every read raises `LogGone` once the segment was deleted; an attempt without output reads
    as empty. Writes return after COMMIT and raise what `store.engine.Database.write` raises.
    Cancelling any call is safe; an append that was begun may still be stored.
    """

    def segment_now(self) -> str:
        """Return the name of today's segment (UTC), e.g. ``2026-11-20``."""
        ...

    def has_room(self) -> bool:
        """Say whether appends are taken: not while the disk is almost full (P15), when each of
        them raises `StorageFull`.
        """
        ...

    async def fence(self, node: str, link_epoch: int) -> None:
        """Refuse all later appends of older links of `node`. Raises `StaleLink` for an old one."""
        ...

    async def append(
        self, node: str, link_epoch: int, segment: str, attempt: str, offset: int, body: bytes
    ) -> Appended:
        """Store a wire body (seams 3) at `offset`.

        What is already stored is skipped, and not compared. Raises `BadChunk`, `LogGap`,
        `StaleLink`, `LogGone`. Appends are applied in the order of the calls.
        """
        ...

    async def lengths(self, attempts: list[tuple[str, str]]) -> dict[str, int]:
        """Return the durable length by attempt, for (segment, attempt) pairs; 0 if unknown.

        Attempts of a deleted segment are left out.
        """
        ...

    async def read(self, segment: str, attempt: str, offset: int, limit: int) -> list[Chunk]:
        """Return the log from `offset` on, at most `limit` bytes; [] past the end."""
        ...

    async def read_lines(
        self, segment: str, attempt: str, line: int, count: int, stream: int | None = None
    ) -> LogLines:
        """Return up to `count` lines from `line` on.

        With `stream`, each line holds only that stream's bytes, and lines without any are left
        out. An answer may stop early (`MAX_RESULT`, or much scanned): go on at `next_line`.
        """
        ...

    async def tail(
        self, segment: str, attempt: str, count: int, stream: int | None = None
    ) -> LogLines:
        """Return the last `count` lines (fewer if they pass `MAX_RESULT`)."""
        ...

    async def search(
        self, segment: str, attempt: str, text: str, from_line: int, limit: int
    ) -> LogMatches:
        """Return up to `limit` lines from `from_line` on that hold `text`, exactly as written.

        Raises `BadSearch` where `text` is empty, too long or holds a newline.
        """
        ...

    async def digest(self, segment: str, attempt: str) -> tuple[int, str]:
        """Return the log's length and the SHA-256 (hex) of its bytes, gaps left out."""
        ...

    async def reset(self, segment: str, attempt: str) -> None:
        """Forget an attempt's log, before it is fetched again from 0."""
        ...

    async def segments(self) -> dict[str, int]:
        """Return the segments that are there, each with the bytes of disk that it takes."""
        ...

    async def delete_segment(self, segment: str, reason: str = "past its retention") -> None:
        """Delete a segment with all its logs; its name reads as `LogGone` from then on."""
        ...

    async def close(self) -> None:
        """Commit what is queued and close everything. Idempotent."""
        ...


class BadSearch(FleetwireError):
    """The text to search for cannot be on a line."""

    code = "bad-search"
