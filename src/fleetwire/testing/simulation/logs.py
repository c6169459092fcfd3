"""The log store in the simulation: the store's own code over rows in memory.

`SegmentedLogs` plans, skips overlaps, finds gaps and fences as it does everywhere; its writer is
`OneByOne` and its database a `MemoryBackend`, whose COMMIT has the same fates as the record's.
What is committed is in `Durable`, which outlives the server's process.
"""

# ruff: noqa: D102 - documented once, at `logs.backend.Backend`

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from fleetwire.core.chunks import GAP
from fleetwire.core.errors import FleetwireError
from fleetwire.server.logs import chunks
from fleetwire.server.logs.backend import Address, Backend, Extent, Row
from fleetwire.server.logs.base import LogGone
from fleetwire.server.logs.store import SegmentedLogs
from fleetwire.testing.simulation.database import Fates, OneByOne, WatchedNudges
from fleetwire.testing.simulation.loop import VirtualLoop


class Durable:
    """What the log store's disk holds."""

    def __init__(self) -> None:
        self.links: dict[str, int] = {}
        self.rows: dict[Address, list[Row]] = {}
        self.extents: dict[Address, Extent] = {}
        self.gone: dict[str, str] = {}

    def become(self, other: Durable) -> None:
        """Hold what the other holds."""
        self.links = dict(other.links)
        self.rows = {address: list(rows) for address, rows in other.rows.items()}
        self.extents = dict(other.extents)
        self.gone = dict(other.gone)

    def length(self, attempt: str) -> int:
        """Return the durable length of an attempt's log."""
        return max((e.length for at, e in self.extents.items() if at.attempt == attempt), default=0)

    def has_gap(self, attempt: str) -> bool:
        """Whether something in the middle of it is missing."""
        return any(
            piece.stream == GAP
            for at, rows in self.rows.items()
            if at.attempt == attempt
            for row in rows
            for piece in chunks.decode(row.body).pieces
        )

    def content(self, attempt: str) -> bytes:
        """Return the bytes of an attempt's log."""
        return b"".join(
            chunks.decode(row.body).data
            for at, rows in self.rows.items()
            if at.attempt == attempt
            for row in rows
        )


class MemoryBackend(Backend):
    """A `Backend` over `Durable`. What is put stays here until the commit."""

    exclusive = True

    def __init__(
        self, durable: Durable, fates: Fates, stored: Callable[[Address, int, bytes], None]
    ) -> None:
        self._durable = durable
        self._fates = fates
        self._stored = stored
        self._work: list[Callable[[], None]] = []
        self._links: dict[str, int] = {}
        self._extents: dict[Address, Extent] = {}
        self.is_open = False

    def begin(self) -> None:
        self._forget()
        self.is_open = True

    def links(self, nodes: set[str]) -> dict[str, int]:
        known = self._durable.links | self._links
        return {node: known[node] for node in sorted(nodes) if node in known}

    def extents_to_write(self, addresses: set[Address]) -> dict[Address, Extent | FleetwireError]:
        return {address: self._extent_or_gone(address) for address in sorted(addresses)}

    def put_link(self, node: str, link_epoch: int) -> None:
        self._links[node] = link_epoch
        self._work.append(lambda: self._durable.links.__setitem__(node, link_epoch))

    def put_rows(self, rows: list[tuple[Address, Row]], extents: dict[Address, Extent]) -> None:
        added, reach = list(rows), dict(extents)
        self._extents |= reach

        def put() -> None:
            for address, row in added:
                self._durable.rows.setdefault(address, []).append(row)
            self._durable.extents |= reach
            for address, row in added:
                self._stored(address, row.offset, chunks.decode(row.body).data)

        self._work.append(put)

    def clear(self, address: Address) -> None:
        self._work.append(lambda: self._durable.rows.__setitem__(address, []))

    def drop(self, segment: str, reason: str) -> None:
        self._durable.gone[segment] = reason

    def commit(self) -> None:
        self._fates.meet(self._carry_out, self._forget)
        self._forget()

    def rollback(self, error: BaseException) -> None:
        del error
        self._forget()

    def diagnose(self, error: BaseException) -> FleetwireError | None:
        return error if isinstance(error, FleetwireError) else None

    def segments(self) -> dict[str, int]:
        return {at.segment: 0 for at in self._durable.rows if at.segment not in self._durable.gone}

    def extent(self, address: Address) -> Extent:
        self._check(address.segment)
        return self._durable.extents.get(address, Extent())

    def extents(self, addresses: list[Address]) -> dict[Address, Extent]:
        gone = self._durable.gone
        return {at: self.extent(at) for at in addresses if at.segment not in gone}

    def rows(self, address: Address, offset: int, count: int) -> list[Row]:
        self._check(address.segment)
        rows = self._durable.rows.get(address, [])
        return [row for row in rows if row.offset + row.length > offset][:count]

    def row_before_line(self, address: Address, line: int) -> Row | None:
        raise AssertionError(f"nobody reads lines here: {address} {line}")

    def close_writer(self) -> None:
        return

    def close_readers(self) -> None:
        return

    def _extent_or_gone(self, address: Address) -> Extent | FleetwireError:
        reason = self._durable.gone.get(address.segment)
        if reason is not None:
            return LogGone(address.segment, reason)
        return self._extents.get(address) or self._durable.extents.get(address, Extent())

    def _check(self, segment: str) -> None:
        if segment in self._durable.gone:
            raise LogGone(segment, self._durable.gone[segment])

    def _carry_out(self) -> None:
        for work in self._work:
            work()

    def _forget(self) -> None:
        self._work = []
        self._links = {}
        self._extents = {}
        self.is_open = False


class SimulatedLogs(SegmentedLogs):
    """`SegmentedLogs`, see the module."""

    def __init__(
        self,
        backend: MemoryBackend,
        *,
        loop: VirtualLoop,
        delay: Callable[[], float],
        nudges: WatchedNudges,
        clock: Callable[[], int],
    ) -> None:
        self._backend = backend
        self._nudges = nudges
        self._clock = clock
        self._known = {}
        self._readers = ThreadPoolExecutor(1)
        self._writer = OneByOne(self._commit_group, loop, delay)
