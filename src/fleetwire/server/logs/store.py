"""The log store: one writer thread with group commit, a few reader threads, one `Backend`.

Appends are planned in memory against the extents that the transaction holds, and all rows of a
batch go to the database together. A refused append (a gap, a stale link, a bad chunk) has then
written nothing, so that no savepoint is needed.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from fleetwire.core.chunks import BadChunk
from fleetwire.core.errors import FleetwireError
from fleetwire.server.durable.errors import DatabaseFailed
from fleetwire.server.durable.groupcommit import Entry, Group, GroupCommit, GroupStatistics
from fleetwire.server.durable.reserve import Reserve
from fleetwire.server.logs import chunks, reading
from fleetwire.server.logs import search as searching
from fleetwire.server.logs.backend import Address, Backend, Extent, Row
from fleetwire.server.logs.base import (
    Appended,
    Chunk,
    LogGap,
    LogLines,
    LogMatches,
    LogStore,
    StaleLink,
    segment_at,
)
from fleetwire.server.nudges.base import Nudges

T = TypeVar("T")

READERS = 3
"""Reader threads: enough that one long search does not stop the others on two cores."""

_BATCH = 64  # entries planned together: one look-up of extents for all of them
_KNOWN = 10_000  # logs whose length is kept in memory
_SEGMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


@dataclass(frozen=True, slots=True)
class _Append:
    node: str
    link_epoch: int
    address: Address
    offset: int
    body: bytes


@dataclass(frozen=True, slots=True)
class _Fence:
    node: str
    link_epoch: int


@dataclass(frozen=True, slots=True)
class _Reset:
    address: Address


@dataclass(frozen=True, slots=True)
class _Drop:
    segment: str
    reason: str


_Work = _Append | _Fence | _Reset | _Drop
_Entry = Entry[_Work, Appended]


class SegmentedLogs(LogStore):
    """`LogStore` over a `Backend`; made by `fleetwire.server.logs.open_logs`.

    `reserve` is of the disk where the logs are, where somebody watches it: below its floor no
    bytes are taken.
    """

    reserve: Reserve | None = None

    def __init__(self, backend: Backend, nudges: Nudges, clock: Callable[[], int]) -> None:
        self._backend = backend
        self._nudges = nudges
        self._clock = clock
        self._known: dict[Address, int] = {}  # durable lengths, where nobody else writes
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="fleetwire-log-reader")
        self._writer: GroupCommit[_Work, Appended] = GroupCommit(
            "fleetwire-log-writer", self._commit_group, backend.close_writer
        )

    def segment_now(self) -> str:
        """Return the name of today's segment (UTC)."""
        return segment_at(self._clock())

    def has_room(self) -> bool:
        """Say whether appends are taken, as far as the disk goes."""
        return self.reserve is None or self.reserve.has_room()

    # -- writing -----------------------------------------------------------------------------

    async def fence(self, node: str, link_epoch: int) -> None:
        """Refuse all later appends of older links of `node`."""
        await self._writer.submit(_Fence(node, link_epoch))

    async def append(
        self, node: str, link_epoch: int, segment: str, attempt: str, offset: int, body: bytes
    ) -> Appended:
        """Store a wire body at `offset`."""
        address = _address(segment, attempt)
        if self.reserve is not None:
            self.reserve.check()
        return await self._writer.submit(_Append(node, link_epoch, address, offset, body))

    async def reset(self, segment: str, attempt: str) -> None:
        """Forget an attempt's log."""
        await self._writer.submit(_Reset(_address(segment, attempt)))

    async def delete_segment(self, segment: str, reason: str = "past its retention") -> None:
        """Delete a segment with all its logs."""
        _check_segment(segment)
        await self._writer.submit(_Drop(segment, reason))

    # -- reading -----------------------------------------------------------------------------

    async def segments(self) -> dict[str, int]:
        """Return the segments that are there, with their sizes."""
        return await self._in_thread(self._backend.segments)

    async def lengths(self, attempts: list[tuple[str, str]]) -> dict[str, int]:
        """Return the durable length by attempt."""
        addresses = [_address(segment, attempt) for segment, attempt in attempts]
        known: dict[str, int] = {}
        for address in addresses:
            length = self._known.get(address)
            if length is not None:
                known[address.attempt] = length
        if missing := [at for at in addresses if at.attempt not in known]:
            found = await self._in_thread(lambda: self._backend.extents(missing))
            known.update((address.attempt, extent.length) for address, extent in found.items())
        return known

    async def read(self, segment: str, attempt: str, offset: int, limit: int) -> list[Chunk]:
        """Return the log from `offset` on, at most `limit` bytes."""
        address = _address(segment, attempt)
        if offset >= self._known.get(address, offset + 1):
            return []  # the many followers of a quiet log cost no thread
        return await self._in_thread(lambda: reading.read(self._backend, address, offset, limit))

    async def read_lines(
        self, segment: str, attempt: str, line: int, count: int, stream: int | None = None
    ) -> LogLines:
        """Return up to `count` lines from `line` on."""
        address = _address(segment, attempt)
        return await self._slice(reading.read_lines(self._backend, address, line, count, stream))

    async def tail(
        self, segment: str, attempt: str, count: int, stream: int | None = None
    ) -> LogLines:
        """Return the last `count` lines."""
        address = _address(segment, attempt)
        return await self._slice(reading.tail(self._backend, address, count, stream))

    async def search(
        self, segment: str, attempt: str, text: str, from_line: int, limit: int
    ) -> LogMatches:
        """Return up to `limit` lines from `from_line` on that hold `text`."""
        address = _address(segment, attempt)
        return await self._slice(searching.search(self._backend, address, text, from_line, limit))

    async def digest(self, segment: str, attempt: str) -> tuple[int, str]:
        """Return the log's length and the SHA-256 (hex) of its bytes."""
        return await self._slice(reading.digest(self._backend, _address(segment, attempt)))

    async def close(self) -> None:
        """Commit what is queued and close everything."""
        await self._writer.close()
        await asyncio.to_thread(self._readers.shutdown)
        self._backend.close_readers()

    async def wait_failed(self) -> DatabaseFailed:
        """Wait until the disk has failed; the caller ends the process then (promise P15)."""
        return await self._writer.wait_failed()

    def statistics(self) -> GroupStatistics:
        """Return the writer's counters."""
        return self._writer.statistics()

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(
            self._readers, self._diagnosed, call
        )

    async def _slice(self, read: reading.Sliced[T]) -> T:
        """Run a long read, giving the thread back after each slice."""
        while True:
            done = await self._in_thread(lambda: _step(read))
            if done is not None:
                return done[0]

    def _diagnosed(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except Exception as error:
            if meaning := self._backend.diagnose(error):
                raise meaning from error
            raise

    # -- the writer thread -------------------------------------------------------------------

    def _commit_group(self, group: Group[_Work, Appended]) -> None:
        entries = iter(group)
        grown: dict[Address, Extent] = {}
        try:
            self._backend.begin()
            while batch := list(itertools.islice(entries, _BATCH)):
                plannable: list[_Entry] = []
                for entry in batch:
                    if not isinstance(entry.work, _Drop):
                        plannable.append(entry)
                        continue
                    # A drop is durable by itself, so what came before it is committed first.
                    grown.update(self._plan(plannable))
                    plannable = []
                    self._commit(grown)
                    self._drop(entry.work)
                    self._backend.begin()
                grown.update(self._plan(plannable))
            self._commit(grown)
        except BaseException as error:
            self._backend.rollback(error)
            self._known.clear()  # a commit of several segments may have stored some
            if meaning := self._backend.diagnose(error):
                raise meaning from error
            raise

    def _commit(self, grown: dict[Address, Extent]) -> None:
        self._backend.commit()
        for address, extent in grown.items():
            if self._backend.exclusive:
                self._known.pop(address, None)
                self._known[address] = extent.length
            self._nudges.send(f"log:{address.attempt}")
        while len(self._known) > _KNOWN:
            del self._known[next(iter(self._known))]
        grown.clear()

    def _drop(self, work: _Drop) -> None:
        segment = work.segment
        self._backend.drop(segment, work.reason)
        for address in [known for known in self._known if known.segment == segment]:
            del self._known[address]

    def _plan(self, entries: list[_Entry]) -> dict[Address, Extent]:
        """Decide every entry, give the rows to the backend; return the extents that changed."""
        if not entries:
            return {}
        backend = self._backend
        plan = _Plan(
            backend.links({e.work.node for e in entries if isinstance(e.work, _Append | _Fence)}),
            backend.extents_to_write(
                {e.work.address for e in entries if isinstance(e.work, _Append | _Reset)}
            ),
        )
        for entry in entries:
            work = entry.work
            try:
                if isinstance(work, _Append):
                    entry.result = plan.append(work)
                elif isinstance(work, _Fence):
                    if plan.fence(work):
                        backend.put_link(work.node, work.link_epoch)
                elif isinstance(work, _Reset):
                    backend.put_rows(plan.rows, plan.changed)
                    plan.reset(work)
                    backend.clear(work.address)
            except FleetwireError as error:
                entry.error = error
        backend.put_rows(plan.rows, plan.changed)
        return plan.changed


class _Plan:
    """The pure part of a batch: what is known inside the transaction, and what will be written."""

    def __init__(
        self, links: dict[str, int], extents: dict[Address, Extent | FleetwireError]
    ) -> None:
        self._links = links
        self._extents = extents
        self.rows: list[tuple[Address, Row]] = []
        self.changed: dict[Address, Extent] = {}

    def fence(self, work: _Fence) -> bool:
        newest = self._links.get(work.node, -1)
        if work.link_epoch < newest:
            raise StaleLink(work.node, work.link_epoch)
        self._links[work.node] = work.link_epoch
        return work.link_epoch > newest

    def reset(self, work: _Reset) -> None:
        self._extent(work.address)
        self._extents[work.address] = self.changed[work.address] = Extent()
        self.rows.clear()

    def append(self, work: _Append) -> Appended:
        if work.link_epoch < self._links.get(work.node, -1):
            raise StaleLink(work.node, work.link_epoch)
        extent = self._extent(work.address)
        if work.offset > extent.length:
            raise LogGap(extent.length)
        body = chunks.decode(work.body)
        stop = work.offset + body.length
        if work.offset < 0 or stop > chunks.MAX_LOG:
            raise BadChunk(f"A chunk from byte {work.offset} to {stop} is outside of any log.")
        if stop <= extent.length:
            return Appended(extent.length, body.length)
        stored = work.body
        skipped = extent.length - work.offset
        if skipped:
            body = chunks.cut(body, skipped, body.length)
            stored = chunks.encode(body.pieces, body.data)
        newlines = body.data.count(b"\n")
        row = Row(
            extent.length, body.length, extent.newlines, newlines, body.pieces[0].time_us, stored
        )
        self.rows.append((work.address, row))
        extent = Extent(stop, extent.newlines + newlines, body.is_open)
        self._extents[work.address] = self.changed[work.address] = extent
        return Appended(stop, skipped)

    def _extent(self, address: Address) -> Extent:
        extent = self._extents[address]
        if isinstance(extent, FleetwireError):
            raise extent
        return extent


def _step(read: reading.Sliced[T]) -> tuple[T] | None:
    try:
        next(read)
    except StopIteration as done:
        return (done.value,)
    return None


def _check_segment(segment: str) -> None:
    if not _SEGMENT.fullmatch(segment):  # it becomes the name of a file or a table
        raise ValueError(f"{segment!r} is no segment name")


def _address(segment: str, attempt: str) -> Address:
    _check_segment(segment)
    return Address(segment, str(uuid.UUID(attempt)))
