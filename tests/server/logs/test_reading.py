"""Every reading against a naive oracle, over random logs cut into random chunks."""

from __future__ import annotations

import asyncio
import tracemalloc
import uuid
from collections.abc import Iterator
from typing import Protocol

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetwire.core.chunks import Piece
from fleetwire.server.logs import chunks, open_logs, reading, store
from fleetwire.server.logs.base import MAX_TEXT, BadSearch, LogLine
from fleetwire.server.logs.store import SegmentedLogs
from fleetwire.server.nudges.memory import MemoryNudges


class OracleLike(Protocol):
    """The naive log of conftest.py, as far as these tests ask it."""

    cells: list[tuple[int, int | None, int]]

    @staticmethod
    def parts(*parts: tuple[int, bytes | int]) -> OracleLike: ...
    async def store(self, logs: SegmentedLogs, attempt: str, cuts: list[int]) -> None: ...
    def data(self, start: int = 0, stop: int | None = None) -> bytes: ...
    def digest(self) -> tuple[int, str]: ...
    def lines(self, stream: int | None = None) -> list[tuple[int, int, int, bytes, int]]: ...


DAY = "2026-11-20"
A = "0199c0de-0000-7000-8000-00000000000a"

parts = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([1, 2]), st.text("ab\n", min_size=1, max_size=9).map(str.encode)),
        st.tuples(st.just(0), st.integers(1, 4)),
    ),
    max_size=12,
)


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def logs(runner: asyncio.Runner, logs_at: str, nudges: MemoryNudges) -> Iterator[SegmentedLogs]:
    async def open_it() -> SegmentedLogs:
        return open_logs(logs_at, nudges=nudges, clock=lambda: 0)

    logs = runner.run(open_it())
    yield logs
    runner.run(logs.close())


def flat(lines: list[LogLine]) -> list[tuple[int, int, int, bytes, int]]:
    return [(row.line, row.offset, row.stream, row.text, row.gap) for row in lines]


fixed = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.slow
@fixed
@given(parts, st.data())
def test_reading_agrees_with_the_oracle(
    runner: asyncio.Runner,
    logs: SegmentedLogs,
    oracle: type[OracleLike],
    log: list[tuple[int, bytes | int]],
    data: st.DataObject,
) -> None:
    expected = oracle.parts(*log)
    size = len(expected.cells)
    cuts = data.draw(st.lists(st.integers(0, size), max_size=8))
    attempt = str(uuid.uuid4())
    stream = data.draw(st.sampled_from([None, 1, 2]))
    first = data.draw(st.integers(0, 9))
    count = data.draw(st.integers(0, 9))
    needle = data.draw(st.text("ab", min_size=1, max_size=3))
    limit = data.draw(st.integers(1, 4))
    low = data.draw(st.integers(0, size))

    async def check() -> None:
        await expected.store(logs, attempt, cuts)
        assert await logs.lengths([(DAY, attempt)]) == {attempt: size}
        assert await logs.digest(DAY, attempt) == expected.digest()
        read = await logs.read(DAY, attempt, low, count * 3)
        assert b"".join(c.data for c in read) == expected.data(low, low + count * 3)
        assert sum(c.length for c in read) == min(count * 3, size - low)

        every = expected.lines()
        total = len(every)
        mine = expected.lines(stream)
        page = await logs.read_lines(DAY, attempt, first, count, stream)
        wanted = [row for row in mine if row[0] >= first][:count]
        assert flat(page.lines) == wanted
        assert page.total_lines == total
        rest = [row for row in mine if row[0] >= first][count:]
        if rest and count:
            assert page.next_line is not None
            assert wanted[-1][0] < page.next_line <= rest[0][0]
        last = await logs.tail(DAY, attempt, count, stream)
        assert flat(last.lines) == (mine[-count:] if count else [])
        assert last.total_lines == total

        hits = [(row[0], row[1], row[3]) for row in every if needle.encode() in row[3]]
        found, line = [], 0
        while True:
            answer = await logs.search(DAY, attempt, needle, line, limit)
            assert len(answer.matches) <= limit
            found += [(m.line, m.offset, m.text) for m in answer.matches]
            if answer.next_line is None:
                break
            assert answer.next_line > line
            line = answer.next_line
        assert found == hits

    runner.run(check())


def test_a_text_across_chunk_borders_is_found(
    runner: asyncio.Runner, logs: SegmentedLogs, oracle: type[OracleLike]
) -> None:
    log = oracle.parts((1, b"first\n--nee"), (2, b"dle--\nneedle\nlast"))
    cuts = list(range(len(log.cells)))  # one byte a chunk
    runner.run(log.store(logs, A, cuts))
    found = runner.run(logs.search(DAY, A, "needle", 0, 9)).matches
    assert [(m.line, m.offset, m.text) for m in found] == [
        (1, 6, b"--needle--"),
        (2, 17, b"needle"),
    ]
    assert runner.run(logs.search(DAY, A, "needle", 2, 9)).matches == found[1:]


@pytest.mark.parametrize("text", ["", "a\nb", "x" * 1025])
def test_a_text_that_cannot_be_on_a_line_is_refused(
    runner: asyncio.Runner, logs: SegmentedLogs, text: str
) -> None:
    with pytest.raises(BadSearch):
        runner.run(logs.search(DAY, A, text, 0, 9))


@pytest.mark.slow
def test_a_line_of_ten_megabytes_is_cut_and_jumped_over(
    runner: asyncio.Runner, logs: SegmentedLogs, monkeypatch: pytest.MonkeyPatch
) -> None:

    pieces = [b"short\n", *[b"x" * 512 * 1024] * 20, b"needle\nnext\n"]
    offset = 0
    for data in pieces:
        body = chunks.encode([Piece(1, len(data), 7)], data)
        offset = runner.run(logs.append("n", 1, DAY, A, offset, body)).length
    decoded: list[int] = []
    decode = chunks.decode

    def counted(body: bytes) -> chunks.Body:
        decoded.append(len(body))
        return decode(body)

    monkeypatch.setattr(chunks, "decode", counted)
    page = runner.run(logs.read_lines(DAY, A, 0, 9))
    short, long, last = page.lines
    assert (short.text, last.text, page.total_lines, page.next_line) == (b"short", b"next", 3, None)
    assert (long.text, long.cut, long.offset) == (b"x" * MAX_TEXT, True, 6)
    assert len(decoded) <= 5  # the middle of the long line was not even looked at
    assert [row.line for row in runner.run(logs.tail(DAY, A, 2)).lines] == [1, 2]
    (found,) = runner.run(logs.search(DAY, A, "needle", 0, 9)).matches
    assert (found.line, found.offset, found.text) == (1, 6, b"x" * MAX_TEXT)


@pytest.mark.slow
def test_memory_stays_small_over_a_large_log(runner: asyncio.Runner, logs: SegmentedLogs) -> None:

    block = b"".join(b"%063d\n" % i for i in range(16 * 1024))  # 1 MiB
    body = chunks.encode([Piece(1, len(block), 7)], block)

    async def fill() -> None:
        for i in range(64):
            await logs.append("n", 1, DAY, A, i * len(block), body)

    async def read_all() -> None:
        assert (await logs.digest(DAY, A))[0] == 64 * len(block)
        assert (await logs.search(DAY, A, "nowhere", 0, 9)).next_line is None
        assert len((await logs.tail(DAY, A, 100_000)).lines) < 40_000
        assert len((await logs.read_lines(DAY, A, 500_000, 1000)).lines) == 1000

    runner.run(fill())
    tracemalloc.start()
    try:
        runner.run(read_all())
        assert tracemalloc.get_traced_memory()[1] < 24 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_a_long_search_gives_its_thread_back(
    runner: asyncio.Runner,
    logs: SegmentedLogs,
    oracle: type[OracleLike],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = oracle.parts(*[(1, b"aaaa\n")] * 30)
    runner.run(log.store(logs, A, list(range(0, 150, 5))))
    monkeypatch.setattr(reading, "SLICE", 10)
    steps: list[int] = []
    step = store._step

    def counted(read: reading.Sliced[object]) -> object:
        steps.append(1)
        return step(read)

    monkeypatch.setattr(store, "_step", counted)
    assert runner.run(logs.search(DAY, A, "b", 0, 9)).matches == []
    assert len(steps) >= 15
    monkeypatch.setattr(reading, "SCAN", 20)
    answer = runner.run(logs.search(DAY, A, "b", 0, 9))
    assert (answer.matches, answer.next_line) == ([], 4)
