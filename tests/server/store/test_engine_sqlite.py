"""What only SQLite can do to the engine: a full disk, a broken disk, a growing WAL, kill -9."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from fleetwire.core.reserve import Room
from fleetwire.server.durable import sqlite
from fleetwire.server.durable.reserve import Reserve
from fleetwire.server.store.engine import (
    Database,
    DatabaseFailed,
    DatabaseUnavailable,
    StorageFull,
    Tx,
)
from fleetwire.server.store.shell_sqlite import SqliteShell


def big(table: sa.Table, number: int, size: int = 100_000) -> Callable[[Tx], int]:
    return lambda tx: (
        tx.connection.execute(table.insert(), {"number": number, "word": "x" * size}).rowcount
    )


def numbers_of(table: sa.Table) -> Callable[[sa.Connection], list[int]]:
    return lambda c: list(c.scalars(sa.select(table.c.number)))


def test_a_full_disk_is_told_apart_and_recovers(
    with_database: Callable[..., None], table: sa.Table
) -> None:
    async def test(database: Database) -> None:
        await database.write(lambda tx: tx.connection.exec_driver_sql("PRAGMA max_page_count = 20"))
        with pytest.raises(StorageFull):
            await database.write(big(table, 1))
        assert await database.write(big(table, 2, 10)) == 1  # a small one still fits
        await database.write(
            lambda tx: tx.connection.exec_driver_sql("PRAGMA max_page_count = 10000")
        )
        assert await database.write(big(table, 1)) == 1

    with_database(test)


def test_a_log_index_that_cannot_grow_is_a_full_disk(tmp_path: Path) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE
    assert isinstance(sqlite.diagnose(error, tmp_path), StorageFull)
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE
    assert isinstance(sqlite.diagnose(error, tmp_path), DatabaseFailed)


def test_a_failed_fsync_ends_the_database(
    with_database: Callable[..., None], table: sa.Table
) -> None:
    async def test(database: Database) -> None:
        def broken(_: sa.Connection) -> None:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
            raise error

        async with asyncio.TaskGroup() as group:
            failed = group.create_task(database.wait_failed())
            database._shell.commit = broken  # type: ignore[method-assign]
            with pytest.raises(DatabaseFailed):
                await database.write(big(table, 1))
            assert isinstance(await failed, DatabaseFailed)
        with pytest.raises(DatabaseFailed):
            await database.write(big(table, 2))
        assert isinstance(await database.wait_failed(), DatabaseFailed)
        assert await database.read(numbers_of(table)) == []

    with_database(test)


def test_another_process_that_writes_is_named(
    with_database: Callable[..., None],
    table: sa.Table,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.01)

    async def test(database: Database) -> None:
        other = sqlite3.connect(tmp_path / "fleetwire.db", isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(DatabaseUnavailable, match="another process"):
                await database.write(big(table, 1))
            other.execute("ROLLBACK")
        finally:
            other.close()
        assert await database.write(big(table, 1)) == 1

    with_database(test)


def test_the_file_is_private_and_set_up_for_durability(
    with_database: Callable[..., None], tmp_path: Path
) -> None:
    def pragma(name: str) -> Callable[[Tx], object]:
        return lambda tx: tx.connection.exec_driver_sql(f"PRAGMA {name}").scalar()

    async def test(database: Database) -> None:
        assert (tmp_path / "fleetwire.db").stat().st_mode & 0o777 == 0o600
        assert await database.write(pragma("journal_mode")) == "wal"
        assert await database.write(pragma("synchronous")) == 2
        assert await database.write(pragma("foreign_keys")) == 1

    with_database(test)


@pytest.mark.slow
def test_the_wal_stays_bounded_though_readers_never_stop(
    with_database: Callable[..., None], table: sa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "WAL_BOUND", 4 * 1024 * 1024)

    async def test(database: Database) -> None:
        is_over = False

        async def keep_reading() -> None:
            while not is_over:
                await database.read(lambda c: c.scalar(sa.select(sa.func.max(table.c.number))))

        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(keep_reading())
            for number in range(400):
                await database.write(big(table, number))
            is_over = True
        assert database.statistics().wal_bytes < 10 * 1024 * 1024

    with_database(test)


CHILD = """
import asyncio, sys
import sqlalchemy as sa
from fleetwire.server.nudges.memory import MemoryNudges
from fleetwire.server.store.engine import Database

table = sa.table("numbers", sa.column("number"))

async def main():
    database = Database.open(
        sys.argv[1], nudges=MemoryNudges(), clock=lambda: 0,
        prepare=lambda c: c.exec_driver_sql("CREATE TABLE IF NOT EXISTS numbers (number INTEGER)"),
    )
    async def write(start):
        for number in range(start, 10**9, 20):
            insert = lambda tx: tx.connection.execute(table.insert(), {"number": number})
            await database.write(insert)
            print(number, flush=True)
    async with asyncio.TaskGroup() as group:
        for start in range(20):
            group.create_task(write(start))

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.faults
def test_what_was_acknowledged_before_kill_9_is_there(database_url: str, tmp_path: Path) -> None:
    for lines in (1, 200, 1000):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, database_url], stdout=subprocess.PIPE, env=os.environ
        )
        with child:
            assert child.stdout is not None
            acknowledged = [int(child.stdout.readline()) for _ in range(lines)]
            child.send_signal(signal.SIGKILL)
            acknowledged += [int(line) for line in child.stdout if line.endswith(b"\n")]
        with sqlite3.connect(tmp_path / "fleetwire.db") as connection:
            stored = {number for (number,) in connection.execute("SELECT number FROM numbers")}
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()
        assert set(acknowledged) <= stored


def test_a_use_case_may_not_outlive_a_full_rollback(
    with_database: Callable[..., None], table: sa.Table
) -> None:
    """Where SQLite rolls the whole transaction back by itself, the group must not go on."""

    async def test(database: Database) -> None:
        def rolls_back(tx: Tx) -> None:
            tx.connection.exec_driver_sql("INSERT OR ROLLBACK INTO numbers (number) VALUES (1)")

        await database.write(big(table, 1))
        with pytest.raises(sa.exc.IntegrityError):
            await database.write(rolls_back)
        assert await database.write(big(table, 2)) == 1

    with_database(test)


class Giving(Reserve):
    """A reserve that has something to give: looking at it lifts the limit of the database."""

    def __init__(self, folder: Path, lift: Callable[[], None]) -> None:
        self.looked = 0
        self._lift = lift
        super().__init__(folder)

    def look(self) -> Room:
        self.looked += 1
        if self.looked > 1:
            self._lift()
        return super().look()


def test_what_must_be_recorded_is_tried_again_with_the_reserve(
    with_database: Callable[..., None], table: sa.Table, tmp_path: Path
) -> None:
    async def test(database: Database) -> None:
        def limit(pages: int) -> Callable[[Tx], object]:
            return lambda tx: tx.connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

        def lift() -> None:
            connection = database._connection
            assert connection is not None
            connection.exec_driver_sql("PRAGMA max_page_count = 10000")

        await database.write(limit(20))
        database.reserve = reserve = Giving(tmp_path, lift)
        assert await database.write(big(table, 1)) == 1
        assert reserve.looked == 2
        await database.write(limit(60))
        with pytest.raises(StorageFull):  # what grows takes nothing of it
            await database.write(big(table, 2, 400_000), grows=True)
        assert await database.read(numbers_of(table)) == [1]
        reserve.close()

    with_database(test)


def test_references_are_checked_after_a_migration_and_not_at_every_start(tmp_path: Path) -> None:
    """With a million runs stored the check takes longer than a start may (P8)."""
    shell = SqliteShell(str(tmp_path / "record.db"))

    def write(*statements: str) -> None:
        with shell.migration() as connection:
            for statement in statements:
                connection.execute(sa.text(statement))

    write(
        "CREATE TABLE parents (id INTEGER PRIMARY KEY)",
        "CREATE TABLE children (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parents (id))",
    )
    with pytest.raises(AssertionError, match="'children' without its 'parents'"):
        write("INSERT INTO children (parent) VALUES (7)")
    with pytest.raises(AssertionError, match="'children' without its 'parents'"):
        write("PRAGMA foreign_keys = OFF", "INSERT INTO children (parent) VALUES (8)")
    unchecked = sqlite3.connect(tmp_path / "record.db")
    unchecked.execute("INSERT INTO children (parent) VALUES (9)")
    unchecked.commit()
    unchecked.close()
    write("SELECT 1")
    with pytest.raises(AssertionError, match="'children' without its 'parents'"):
        write("CREATE TABLE others (id INTEGER)")
    shell.dispose()
