from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from fleetwire.core.chunks import BadChunk, Piece
from fleetwire.server.durable.errors import DatabaseClosed
from fleetwire.server.logs import chunks, open_logs
from fleetwire.server.logs.base import LogGap, LogGone, StaleLink
from fleetwire.server.logs.sqlite import _MOST_SPARE, SqliteBackend
from fleetwire.server.logs.store import SegmentedLogs
from fleetwire.server.nudges.memory import MemoryNudges

DAY = "2026-11-20"
A = "0199c0de-0000-7000-8000-00000000000a"
B = "0199c0de-0000-7000-8000-00000000000b"


def body(data: bytes, stream: int = 1, time_us: int = 5) -> bytes:
    return chunks.encode([Piece(stream, len(data), time_us)], data)


async def text(logs: SegmentedLogs, attempt: str = A, offset: int = 0) -> bytes:
    return b"".join(c.data for c in await logs.read(DAY, attempt, offset, 1 << 20))


def test_an_append_is_read_back(with_logs: Callable[..., None]) -> None:
    async def test(logs: SegmentedLogs) -> None:
        assert await logs.append("n", 1, DAY, A, 0, body(b"one\n")) == (4, 0)
        assert await logs.append("n", 1, DAY, A, 4, body(b"two\n", 2, 9)) == (8, 0)
        first, second = await logs.read(DAY, A, 0, 100)
        assert (first.offset, first.data, first.pieces) == (0, b"one\n", [Piece(1, 4, 5)])
        assert (second.offset, second.data, second.pieces) == (4, b"two\n", [Piece(2, 4, 9)])
        assert await logs.read(DAY, A, 8, 100) == []
        assert await logs.read(DAY, B, 0, 100) == []
        assert await logs.lengths([(DAY, A), (DAY, B), ("2026-11-19", B)]) == {A: 8, B: 0}

    with_logs(test)


def test_a_read_is_cut_at_both_ends(with_logs: Callable[..., None]) -> None:
    async def test(logs: SegmentedLogs) -> None:
        await logs.append("n", 1, DAY, A, 0, body(b"abcdef"))
        await logs.append("n", 1, DAY, A, 6, body(b"ghijkl"))
        (one, two) = await logs.read(DAY, A, 2, 6)
        assert (one.offset, one.data, two.offset, two.data) == (2, b"cdef", 6, b"gh")
        assert await logs.read(DAY, A, 2, 0) == []

    with_logs(test)


def test_the_overlap_is_skipped_and_a_gap_refused(with_logs: Callable[..., None]) -> None:
    async def test(logs: SegmentedLogs) -> None:
        await logs.append("n", 1, DAY, A, 0, body(b"one\ntwo\n"))
        assert await logs.append("n", 1, DAY, A, 0, body(b"one\n")) == (8, 4)
        assert await logs.append("n", 1, DAY, A, 4, body(b"two\nthree\n")) == (14, 4)
        with pytest.raises(LogGap) as gap:
            await logs.append("n", 1, DAY, A, 15, body(b"x"))
        assert gap.value.length == 14
        assert await text(logs) == b"one\ntwo\nthree\n"
        assert [row.text for row in (await logs.tail(DAY, A, 9)).lines] == [
            b"one", b"two", b"three"
        ]  # fmt: skip

    with_logs(test)


def test_one_bad_append_of_a_group_fails_alone(with_logs: Callable[..., None]) -> None:
    async def test(logs: SegmentedLogs) -> None:
        async def refused() -> None:
            with pytest.raises(BadChunk):
                await logs.append("n", 1, DAY, B, 0, b"no zstd")

        async with asyncio.TaskGroup() as group:
            for i in range(50):
                group.create_task(logs.append("n", 1, DAY, A, i, body(b"x")))
            group.create_task(refused())
            for i in range(50, 100):
                group.create_task(logs.append("n", 1, DAY, A, i, body(b"x")))
        assert await text(logs) == b"x" * 100
        assert logs.statistics().largest > 1

    with_logs(test)


def test_a_newer_link_fences_the_older_one(with_logs: Callable[..., None]) -> None:
    async def test(logs: SegmentedLogs) -> None:
        await logs.fence("n", 4)
        await logs.append("n", 4, DAY, A, 0, body(b"four"))
        await logs.fence("n", 5)
        with pytest.raises(StaleLink):
            await logs.append("n", 4, DAY, A, 4, body(b"late"))
        with pytest.raises(StaleLink):
            await logs.fence("n", 4)
        await logs.fence("n", 5)
        await logs.append("other", 1, DAY, B, 0, body(b"other node"))
        assert await logs.append("n", 5, DAY, A, 4, body(b"five")) == (8, 0)
        assert await text(logs) == b"fourfive"

    with_logs(test)


def test_a_reset_log_begins_again(with_logs: Callable[..., None]) -> None:
    async def test(logs: SegmentedLogs) -> None:
        await logs.append("n", 1, DAY, A, 0, body(b"wrong\nbytes"))
        await logs.append("n", 1, DAY, B, 0, body(b"kept"))
        async with asyncio.TaskGroup() as group:  # one group commit, in this order
            group.create_task(logs.append("n", 1, DAY, A, 11, body(b"more")))
            group.create_task(logs.reset(DAY, A))
            group.create_task(logs.append("n", 1, DAY, A, 0, body(b"right")))
        assert await text(logs) == b"right"
        assert await logs.lengths([(DAY, A)]) == {A: 5}
        assert (await logs.read_lines(DAY, A, 0, 9)).total_lines == 1
        await logs.reset(DAY, A)
        assert await text(logs) == b""
        assert await text(logs, B) == b"kept"

    with_logs(test)


def test_a_deleted_segment_says_why(with_logs: Callable[..., None], logs_at: str) -> None:
    async def test(logs: SegmentedLogs) -> None:
        await logs.append("n", 1, DAY, A, 0, body(b"old"))
        await logs.append("n", 1, "2026-11-21", B, 0, body(b"new"))
        assert await text(logs) == b"old"
        await logs.delete_segment(DAY, "past its 30 days")
        await logs.delete_segment(DAY, "twice")
        for call in (
            logs.read(DAY, A, 0, 9),
            logs.read(DAY, A, 3, 9),
            logs.read_lines(DAY, A, 0, 9),
            logs.tail(DAY, A, 9),
            logs.search(DAY, A, "x", 0, 9),
            logs.digest(DAY, A),
            logs.append("n", 1, DAY, A, 3, body(b"late")),
            logs.reset(DAY, A),
        ):
            with pytest.raises(LogGone) as gone:
                await call
            assert gone.value.reason == "past its 30 days"
        assert await logs.lengths([(DAY, A), ("2026-11-21", B)]) == {B: 3}

    with_logs(test)

    async def after_a_restart(logs: SegmentedLogs) -> None:
        with pytest.raises(LogGone):
            await logs.read(DAY, A, 0, 9)
        assert await logs.lengths([("2026-11-21", B)]) == {B: 3}

    with_logs(after_a_restart)
    if not logs_at.startswith("postgresql"):
        assert sorted(file.name for file in Path(logs_at).glob(f"{DAY}*")) == [f"{DAY}.gone"]


def test_nudges_come_only_after_the_commit(
    with_logs: Callable[..., None], nudges: MemoryNudges
) -> None:
    async def test(logs: SegmentedLogs) -> None:
        async with nudges.listen(f"log:{A}", f"log:{B}") as listener:
            await logs.append("n", 1, DAY, A, 0, body(b"x"))
            assert await listener.wait(5) == {f"log:{A}"}
            assert await text(logs) == b"x"
            await logs.append("n", 1, DAY, A, 0, body(b"x"))  # nothing new
            assert await listener.wait(0.01) == set()

    with_logs(test)


def test_a_failed_commit_acknowledges_nothing(
    with_logs: Callable[..., None], nudges: MemoryNudges
) -> None:
    async def test(logs: SegmentedLogs) -> None:
        await logs.append("n", 1, DAY, A, 0, body(b"kept"))
        commit = logs._backend.commit
        failures = iter([OSError("the disk went away"), OSError("still")])

        def failing() -> None:
            if error := next(failures, None):
                raise error
            commit()

        logs._backend.commit = failing  # type: ignore[method-assign]
        async with nudges.listen(f"log:{A}") as listener:
            for _ in range(2):
                with pytest.raises(OSError, match=r"disk|still"):
                    await logs.append("n", 1, DAY, A, 4, body(b"lost"))
            assert await text(logs) == b"kept"
            assert await logs.lengths([(DAY, A)]) == {A: 4}
            assert await listener.wait(0.01) == set()
            assert await logs.append("n", 1, DAY, A, 4, body(b"sent again")) == (14, 0)
            assert await text(logs) == b"keptsent again"

    with_logs(test)


def test_everything_is_there_after_a_reopen(with_logs: Callable[..., None]) -> None:
    async def before(logs: SegmentedLogs) -> None:
        await logs.append("n", 1, DAY, A, 0, body(b"one\ntw"))

    async def after(logs: SegmentedLogs) -> None:
        assert await logs.append("n", 1, DAY, A, 6, body(b"o\nthree")) == (13, 0)
        assert [row.text for row in (await logs.tail(DAY, A, 9)).lines] == [
            b"one", b"two", b"three"
        ]  # fmt: skip

    with_logs(before)
    with_logs(after)


def test_a_closed_store_says_so(logs_at: str, nudges: MemoryNudges) -> None:
    async def main() -> None:
        logs = open_logs(logs_at, nudges=nudges, clock=lambda: 0)
        assert logs.segment_now() == "1970-01-01"
        await logs.close()
        await logs.close()
        with pytest.raises(DatabaseClosed):
            await logs.append("n", 1, DAY, A, 0, body(b"x"))

    asyncio.run(main())


@pytest.mark.parametrize(
    "segment", ["../2026-11-20", "2026-11-20.db", "", "2026-11-2\N{ARABIC-INDIC DIGIT ZERO}"]
)
def test_a_segment_name_is_never_a_path(with_logs: Callable[..., None], segment: str) -> None:
    async def test(logs: SegmentedLogs) -> None:
        with pytest.raises(ValueError, match="segment"):
            await logs.read(segment, A, 0, 1)
        with pytest.raises(ValueError, match="segment"):
            await logs.delete_segment(segment)

    with_logs(test)


def test_idle_readers_of_many_days_have_a_bound(tmp_path: Path) -> None:
    async def main() -> None:
        backend = SqliteBackend(tmp_path / "logs")
        logs = SegmentedLogs(backend, MemoryNudges(), lambda: 0)
        days = [f"2026-10-{day:02}" for day in range(1, 21)]
        for day in days:
            await logs.append("n", 1, day, A, 0, body(day.encode()))
        for _ in range(2):
            for day in days:
                (chunk,) = await logs.read(day, A, 0, 100)
                assert chunk.data == day.encode()
                assert len(backend._spare) <= _MOST_SPARE
        idle = [segment for segment, _ in backend._spare]
        assert idle == days[-_MOST_SPARE:]
        await logs.delete_segment(days[-1])
        assert days[-1] not in [segment for segment, _ in backend._spare]
        await logs.close()
        assert not backend._spare

    asyncio.run(main())
