"""What only a server apart can do to the engine: break the connection, at the worst moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from fleetwire.server.nudges.memory import MemoryNudges
from fleetwire.server.store.engine import CommitUnknown, Database, DatabaseUnavailable, Tx


def add(table: sa.Table, number: int) -> Callable[[Tx], int]:
    def use_case(tx: Tx) -> int:
        tx.connection.execute(table.insert(), {"number": number})
        return 1

    return use_case


def count(table: sa.Table) -> Callable[[sa.Connection], int | None]:
    return lambda c: c.scalar(sa.select(sa.func.count()).select_from(table))


def kill(database_url: str, what: str) -> None:
    import psycopg  # noqa: PLC0415 - SQLite's runs do not need it

    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE application_name = %s AND datname = current_database()",
            (f"fleetwire {what}",),
        )


def test_a_connection_lost_during_commit_is_unknown(
    with_database: Callable[..., None], table: sa.Table, database_url: str, nudges: MemoryNudges
) -> None:
    async def test(database: Database) -> None:
        commit = database._shell.commit

        def lose(connection: sa.Connection) -> None:
            kill(database_url, "writer")
            commit(connection)

        database._shell.commit = lose  # type: ignore[method-assign]
        async with nudges.listen("never") as listener:
            with pytest.raises(CommitUnknown):
                await database.write(lambda tx: (add(table, 1)(tx), tx.nudge("never")))
            database._shell.commit = commit  # type: ignore[method-assign]
            assert await listener.wait(0.01) == set()
        assert await database.write(add(table, 2)) == 1  # on a new connection
        assert await database.read(count(table)) == 1

    with_database(test)


def test_a_connection_lost_before_commit_stored_nothing(
    with_database: Callable[..., None], table: sa.Table, database_url: str
) -> None:
    async def test(database: Database) -> None:
        def lost(tx: Tx) -> None:
            add(table, 1)(tx)
            kill(database_url, "writer")
            add(table, 2)(tx)

        async with asyncio.TaskGroup() as group:
            for n in (10, 11):
                group.create_task(database.write(add(table, n)))
        with pytest.raises(DatabaseUnavailable):
            await database.write(lost)
        assert await database.write(add(table, 3)) == 1
        assert await database.read(count(table)) == 3

    with_database(test)


def test_a_reader_gets_a_new_connection(
    with_database: Callable[..., None], table: sa.Table, database_url: str
) -> None:
    async def test(database: Database) -> None:
        assert await database.read(count(table)) == 0
        kill(database_url, "reader")
        with pytest.raises(DatabaseUnavailable):
            await database.read(count(table))
        assert await database.read(count(table)) == 0

    with_database(test)


def test_a_server_that_is_not_there_is_named(nudges: MemoryNudges) -> None:
    with pytest.raises(DatabaseUnavailable) as error:
        Database.open("postgresql://fleet:secret@127.0.0.1:1/fleet", nudges=nudges, clock=lambda: 0)
    assert "secret" not in str(error.value)
