"""The log store on the database of this run, and a naive picture of what it must hold."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fleetwire.core.chunks import GAP, Piece
from fleetwire.server.logs import chunks, open_logs
from fleetwire.server.logs.store import SegmentedLogs
from fleetwire.server.nudges.memory import MemoryNudges

DAY = "2026-11-20"
NOON = 1_795_176_000_000_000  # of that day, in microseconds since 1970

Open = Callable[..., SegmentedLogs]


class Cell(NamedTuple):
    """One byte of a log; `byte` is None where it was dropped."""

    stream: int
    byte: int | None
    time_us: int


class Oracle:
    """A log as a plain list of cells, and every answer computed the slow and obvious way."""

    def __init__(self, cells: list[Cell] | None = None) -> None:
        self.cells = cells or []

    @staticmethod
    def parts(*parts: tuple[int, bytes | int]) -> Oracle:
        """Build a log from (stream, bytes) and (0, dropped) parts."""
        cells: list[Cell] = []
        for time_us, (stream, what) in enumerate(parts):
            if isinstance(what, int):
                cells += [Cell(GAP, None, time_us)] * what
            else:
                cells += [Cell(stream, byte, time_us) for byte in what]
        return Oracle(cells)

    def body(self, start: int, stop: int) -> bytes:
        """The wire body of a part."""
        pieces: list[Piece] = []
        for cell in self.cells[start:stop]:
            if pieces and pieces[-1][0] == cell.stream and pieces[-1][2] == cell.time_us:
                pieces[-1] = pieces[-1]._replace(length=pieces[-1].length + 1)
            else:
                pieces.append(Piece(cell.stream, 1, cell.time_us))
        return chunks.encode(pieces, self.data(start, stop))

    def data(self, start: int = 0, stop: int | None = None) -> bytes:
        return bytes(c.byte for c in self.cells[start:stop] if c.byte is not None)

    def digest(self) -> tuple[int, str]:
        return len(self.cells), hashlib.sha256(self.data()).hexdigest()

    def lines(self, stream: int | None = None) -> list[tuple[int, int, int, bytes, int]]:
        """(line, offset, stream, text, gap) of every line, uncut."""
        found = []
        line = start = 0
        while start < len(self.cells):
            stop = start
            while stop < len(self.cells) and self.cells[stop].byte != 10:
                stop += 1
            mine = [
                (at, self.cells[at])
                for at in range(start, min(stop + 1, len(self.cells)))
                if stream is None or self.cells[at].stream == stream
            ]
            if mine:
                text = bytes(c.byte for _, c in mine if c.byte is not None).removesuffix(b"\n")
                gap = sum(self.cells[at].byte is None for at in range(start, stop))
                found.append((line, mine[0][0], mine[0][1].stream, text, gap))
            line += 1
            start = stop + 1
        return found

    async def store(self, logs: SegmentedLogs, attempt: str, cuts: list[int]) -> None:
        """Append it all, in chunks that end at `cuts`."""
        ends = sorted({*(c for c in cuts if 0 < c < len(self.cells)), len(self.cells)} - {0})
        start = 0
        async with asyncio.TaskGroup() as group:
            for stop in ends:
                body = self.body(start, stop)
                group.create_task(logs.append("node", 1, DAY, attempt, start, body))
                start = stop


@pytest.fixture
def nudges() -> MemoryNudges:
    return MemoryNudges()


@pytest.fixture
def oracle() -> type[Oracle]:
    return Oracle


@pytest.fixture
def logs_at(database_url: str, tmp_path: Path) -> str:
    """Where the log store of this test is."""
    return str(tmp_path / "logs") if database_url.startswith("sqlite") else database_url


@pytest.fixture
def with_logs(logs_at: str, nudges: MemoryNudges) -> Callable[..., None]:
    """Run an async function with an open log store, and close it."""

    def run(test: Callable[[SegmentedLogs], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            logs = open_logs(logs_at, nudges=nudges, clock=lambda: NOON)
            try:
                await test(logs)
            finally:
                await logs.close()

        asyncio.run(main())

    return run
