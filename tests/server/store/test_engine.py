from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from fleetwire.core.errors import FleetwireError
from fleetwire.server.durable import groupcommit
from fleetwire.server.durable.errors import DatabaseClosed
from fleetwire.server.nudges.memory import MemoryNudges
from fleetwire.server.store.engine import CommitFailed, Database, Tx


def insert(table: sa.Table, number: int, **values: int | str) -> Callable[[Tx], int]:
    def use_case(tx: Tx) -> int:
        tx.connection.execute(table.insert(), {"number": number, **values})
        tx.nudge(f"number:{number}")
        return number

    return use_case


def all_numbers(table: sa.Table) -> Callable[[sa.Connection], list[int]]:
    return lambda c: list(c.scalars(sa.select(table.c.number).order_by(table.c.number)))


@contextmanager
def held(database: Database) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Hold the writer thread in its next COMMIT, so that what is queued becomes one group.

    Gives two events: the writer has entered the COMMIT; release it.
    """
    entered, release = threading.Event(), threading.Event()
    patch = pytest.MonkeyPatch()
    patch.setattr(groupcommit, "MOST_SECONDS", 60.0)  # a slow machine must not split the group
    commit = database._shell.commit

    def slow(connection: sa.Connection) -> None:
        database._shell.commit = commit  # type: ignore[method-assign]
        entered.set()
        assert release.wait(10)
        commit(connection)

    database._shell.commit = slow  # type: ignore[method-assign]
    try:
        yield entered, release
    finally:
        release.set()
        patch.undo()


async def one_group(database: Database, *use_cases: Callable[[Tx], Any]) -> list[Any]:
    """Run use cases in one group commit; return the results, exceptions among them."""

    async def attempt(use_case: Callable[[Tx], object]) -> object:
        try:
            return await database.write(use_case)
        except Exception as error:  # noqa: BLE001 - it is the result
            return error

    before = database.statistics()
    with held(database) as (entered, release):
        async with asyncio.TaskGroup() as group:
            first = group.create_task(database.write(lambda _: None))
            assert await asyncio.to_thread(entered.wait, 10)
            tasks = [group.create_task(attempt(use_case)) for use_case in use_cases]
            await asyncio.sleep(0)
            release.set()
        await first
    assert database.statistics().commits - before.commits == 2
    return [task.result() for task in tasks]


def test_a_write_is_read_back(with_database: Callable[..., None], table: sa.Table) -> None:
    async def test(database: Database) -> None:
        assert await database.write(insert(table, 7)) == 7
        assert await database.read(all_numbers(table)) == [7]

    with_database(test)


def test_one_failing_statement_among_100_fails_alone(
    with_database: Callable[..., None], table: sa.Table
) -> None:
    async def test(database: Database) -> None:
        await database.write(insert(table, 50))
        results = await one_group(database, *(insert(table, n) for n in range(100)))
        (failed,) = [r for r in results if isinstance(r, BaseException)]
        assert isinstance(failed, sa.exc.IntegrityError)
        assert results[50] is failed
        assert await database.read(all_numbers(table)) == list(range(100))

    with_database(test)


def test_a_failing_use_case_undoes_all_it_did(
    with_database: Callable[..., None], table: sa.Table
) -> None:
    async def test(database: Database) -> None:
        def half(tx: Tx) -> None:
            insert(table, 2)(tx)
            insert(table, 3)(tx)
            raise KeyError("changed its mind")

        first, second, third = await one_group(database, insert(table, 1), half, insert(table, 4))
        assert (first, third) == (1, 4)
        assert isinstance(second, KeyError)
        assert await database.read(all_numbers(table)) == [1, 4]

    with_database(test)


def test_a_failed_commit_acknowledges_nobody(
    with_database: Callable[..., None], table: sa.Table, nudges: MemoryNudges
) -> None:
    async def test(database: Database) -> None:
        async with nudges.listen("number:1", "number:2", "number:3") as listener:
            results = await one_group(
                database, insert(table, 1), insert(table, 2, parent=99), insert(table, 3)
            )
            assert [type(r) for r in results] == [CommitFailed] * 3
            assert len({id(r) for r in results}) == 3  # no traceback is shared
            assert await database.read(all_numbers(table)) == []
            assert await listener.wait(0.01) == set()
            assert await database.write(insert(table, 3)) == 3
            assert await listener.wait(5) == {"number:3"}

    with_database(test)


def test_nudges_leave_after_the_commit_and_only_then(
    with_database: Callable[..., None], table: sa.Table, nudges: MemoryNudges
) -> None:
    async def test(database: Database) -> None:
        sent: list[tuple[str, list[int]]] = []
        query = all_numbers(table)

        def spy(topic: str) -> None:
            with database._shell.connect(reader=True) as connection:
                sent.append((topic, query(connection)))

        nudges.send = spy  # type: ignore[method-assign]

        def failing(tx: Tx) -> None:
            tx.nudge("never")
            raise KeyError

        await one_group(database, insert(table, 1), failing, insert(table, 2))
        assert sent == [("number:1", [1, 2]), ("number:2", [1, 2])]

    with_database(test)


def test_readers_see_only_what_is_committed(
    with_database: Callable[..., None], table: sa.Table
) -> None:
    async def test(database: Database) -> None:
        written, go_on = threading.Event(), threading.Event()

        def slow(tx: Tx) -> None:
            insert(table, 1)(tx)
            written.set()
            assert go_on.wait(10)

        async with asyncio.TaskGroup() as group:
            group.create_task(database.write(slow))
            assert await asyncio.to_thread(written.wait, 10)
            assert await database.read(all_numbers(table)) == []
            go_on.set()
        assert await database.read(all_numbers(table)) == [1]

    with_database(test)


def test_a_read_is_one_snapshot_and_cannot_write(
    with_database: Callable[..., None], table: sa.Table
) -> None:
    async def test(database: Database) -> None:
        loop = asyncio.get_running_loop()
        query = all_numbers(table)

        def twice(connection: sa.Connection) -> tuple[list[int], list[int]]:
            before = query(connection)
            write = database.write(insert(table, 2))
            asyncio.run_coroutine_threadsafe(write, loop).result(10)
            return before, query(connection)

        await database.write(insert(table, 1))
        assert await database.read(twice) == ([1], [1])
        with pytest.raises(sa.exc.DBAPIError):
            await database.read(lambda c: c.execute(table.insert(), {"number": 3}))
        assert await database.read(query) == [1, 2]

    with_database(test)


def test_use_cases_run_in_order_with_one_time(with_database: Callable[..., None]) -> None:
    async def test(database: Database) -> None:
        seen: list[int] = []

        def numbered(number: int) -> Callable[[Tx], int]:
            def use_case(tx: Tx) -> int:
                seen.append(number)
                return tx.now

            return use_case

        times = await one_group(database, *(numbered(n) for n in range(50)))
        assert seen == list(range(50))
        assert len(set(times)) == 1

    with_database(test)


def test_a_use_case_that_commits_is_found_out(
    with_database: Callable[..., None], table: sa.Table
) -> None:
    async def test(database: Database) -> None:
        def bad(tx: Tx) -> None:
            insert(table, 1)(tx)
            tx.connection.exec_driver_sql("COMMIT")

        with pytest.raises(AssertionError, match="ended the transaction"):
            await database.write(bad)
        assert await database.write(insert(table, 2)) == 2

    with_database(test)


def test_what_is_queued_at_close_is_committed(
    with_database: Callable[..., None], table: sa.Table
) -> None:
    async def test(database: Database) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(database.write(insert(table, n))) for n in range(600)]
            await asyncio.sleep(0)
            group.create_task(database.close())
        assert [task.result() for task in tasks] == list(range(600))
        with pytest.raises(DatabaseClosed):
            await database.write(insert(table, 1))

    with_database(test)


def test_a_cancelled_caller_disturbs_nobody(
    with_database: Callable[..., None], table: sa.Table
) -> None:
    async def test(database: Database) -> None:
        with held(database) as (entered, release):
            async with asyncio.TaskGroup() as group:
                group.create_task(database.write(lambda _: None))
                assert await asyncio.to_thread(entered.wait, 10)
                gone = group.create_task(database.write(insert(table, 1)))
                stays = group.create_task(database.write(insert(table, 2)))
                await asyncio.sleep(0)
                gone.cancel()
                await asyncio.sleep(0)
                release.set()
        assert stays.result() == 2
        assert await database.read(all_numbers(table)) == [2]

    with_database(test)


def test_groups_are_bounded(with_database: Callable[..., None]) -> None:
    async def test(database: Database) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(1000):
                group.create_task(database.write(lambda _: None))
        statistics = database.statistics()
        assert statistics.use_cases == 1000
        assert 1 < statistics.largest_commit <= 256

    with_database(test)


def test_a_reaction_is_part_of_the_commit_that_nudged_it(
    with_database: Callable[..., None], table: sa.Table, nudges: MemoryNudges
) -> None:
    async def test(database: Database) -> None:
        seen: list[set[str]] = []
        after: list[str] = []

        def double(tx: Tx, topics: Collection[str]) -> Collection[str]:
            seen.append(set(topics))
            tx.connection.execute(table.insert(), {"number": 100, "word": "of the reaction"})
            tx.nudge("number:100")
            tx.afterwards(lambda: after.append("reaction"))
            return [topic for topic in topics if topic == "number:1"]

        def last(tx: Tx, topics: Collection[str]) -> Collection[str]:
            del tx
            seen.append(set(topics))
            return ()

        database.react(double, last)
        before = database.statistics().commits
        async with nudges.listen("number:1", "number:100") as listener:
            await database.write(insert(table, 1))
            assert await listener.wait(10) == {"number:100"}
        assert database.statistics().commits - before == 1
        assert seen == [{"number:1"}, {"number:100"}]
        assert after == ["reaction"]
        assert await database.read(all_numbers(table)) == [1, 100]

    with_database(test)


def test_a_reaction_that_fails_takes_nothing_with_it(
    with_database: Callable[..., None], table: sa.Table, nudges: MemoryNudges
) -> None:
    async def test(database: Database) -> None:
        after: list[str] = []

        def fail(tx: Tx, topics: Collection[str]) -> Collection[str]:
            assert "number:1" in topics
            tx.connection.execute(table.insert(), {"number": 100})
            tx.nudge("number:100")
            tx.afterwards(lambda: after.append("never"))
            raise ValueError("a fault of ours")

        database.react(fail)
        async with nudges.listen("number:1", "number:100") as listener:
            assert await database.write(insert(table, 1)) == 1
            assert await listener.wait(10) == {"number:1"}
        assert after == []
        assert await database.read(all_numbers(table)) == [1]

    with_database(test)


def test_what_comes_afterwards_comes_only_after_a_commit(
    with_database: Callable[..., None], table: sa.Table
) -> None:
    async def test(database: Database) -> None:
        after: list[int] = []

        def use_case(number: int, parent: int | None) -> Callable[[Tx], None]:
            def run(tx: Tx) -> None:
                tx.afterwards(lambda: after.append(number))
                tx.connection.execute(table.insert(), {"number": number, "parent": parent})
                if number == 2:
                    raise ValueError("refused")

            return run

        await one_group(database, use_case(1, None), use_case(2, None), use_case(3, None))
        assert after == [1, 3]
        with pytest.raises(CommitFailed):
            await database.write(use_case(4, 77))  # the foreign key is checked at COMMIT
        assert after == [1, 3]

    with_database(test)


@pytest.mark.parametrize("url", ["mysql://x", "sqlite:///:memory:", "sqlite:///", "fleet.db"])
def test_another_database_is_refused(url: str, nudges: MemoryNudges) -> None:
    with pytest.raises(FleetwireError):
        Database.open(url, nudges=nudges, clock=lambda: 0)
