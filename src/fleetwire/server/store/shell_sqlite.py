"""SQLite in one file, for `engine`."""

# ruff: noqa: D102 - documented once, at `shell.Shell`

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import sqlalchemy

from fleetwire.core.errors import FleetwireError
from fleetwire.server.durable import sqlite
from fleetwire.server.store.shell import Shell, autocommit_engine, commit_failed, original


class SqliteShell(Shell):
    """SQLite in one file, used by one server process."""

    def __init__(self, path: str) -> None:
        if path in {"", ":memory:"} or path.startswith("file:"):
            msg = f"SQLite needs the path of a file, not {path!r}."
            raise FleetwireError(msg, hint="Write sqlite:///PATH.")
        self._path = Path(path)
        self._wal: sqlite.WalBound | None = None
        self._writers = autocommit_engine("sqlite://", lambda: sqlite.connect(self._path))
        self._readers = autocommit_engine(
            "sqlite://", lambda: sqlite.connect(self._path, reader=True)
        )

    def connect(self, *, reader: bool = False) -> sqlalchemy.Connection:
        if reader:
            return self._readers.connect()
        connection = self._writers.connect()
        self._wal = sqlite.WalBound(_sqlite(connection), self._path)
        return connection

    @contextmanager
    def migration(self) -> Iterator[sqlalchemy.Connection]:
        # SQLite alters a table by building it anew, which foreign keys would stop: they are
        # off for this connection and checked before the commit, where anything was written: with
        # a million runs stored the check takes twenty seconds, which no start can wait for (P8).
        engine = autocommit_engine(
            "sqlite://", lambda: sqlite.connect(self._path, foreign_keys=False, shrinks=True)
        )
        with engine.connect() as connection:
            driver = _sqlite(connection)
            driver.execute("BEGIN IMMEDIATE")
            try:
                before = driver.total_changes, *driver.execute("PRAGMA schema_version").fetchone()
                yield connection
                after = driver.total_changes, *driver.execute("PRAGMA schema_version").fetchone()
                if before != after and (
                    broken := driver.execute("PRAGMA foreign_key_check").fetchone()
                ):
                    msg = f"a migration left a row of {broken[0]!r} without its {broken[2]!r}"
                    raise AssertionError(msg)
                driver.execute("COMMIT")
            finally:
                if driver.in_transaction:
                    driver.execute("ROLLBACK")

    def begin(self, connection: sqlalchemy.Connection) -> None:
        driver = _sqlite(connection)
        # IMMEDIATE: a deferred transaction that becomes a writer late fails instead of waiting.
        driver.execute("BEGIN IMMEDIATE")
        driver.execute("SAVEPOINT one")

    def renew_savepoint(self, connection: sqlalchemy.Connection) -> None:
        driver = _sqlite(connection)
        driver.execute("RELEASE one")
        driver.execute("SAVEPOINT one")

    def return_to_savepoint(self, connection: sqlalchemy.Connection) -> None:
        _sqlite(connection).execute("ROLLBACK TO one")

    def commit(self, connection: sqlalchemy.Connection) -> None:
        try:
            _sqlite(connection).execute("COMMIT")
        except sqlite3.IntegrityError as error:
            raise commit_failed(error) from error
        if self._wal is not None:
            self._wal.check()

    def in_transaction(self, connection: sqlalchemy.Connection) -> bool:
        return _sqlite(connection).in_transaction

    def changes(self, connection: sqlalchemy.Connection) -> int | None:
        return _sqlite(connection).total_changes

    def begin_read(self, connection: sqlalchemy.Connection) -> None:
        _sqlite(connection).execute("BEGIN")

    def end_read(self, connection: sqlalchemy.Connection) -> None:
        _sqlite(connection).execute("COMMIT")

    def abandon(self, connection: sqlalchemy.Connection, error: BaseException) -> bool:
        del error  # a file is never "disconnected"
        driver = _sqlite(connection)
        if driver.in_transaction:
            try:
                driver.execute("ROLLBACK")
            except sqlite3.Error:
                # A broken disk can refuse even this; closing drops the transaction for certain.
                connection.close()
                return False
        return True

    def diagnose(self, error: BaseException) -> FleetwireError | None:
        return sqlite.diagnose(original(error), self._path)

    def reclaim(self, connection: sqlalchemy.Connection, most: int) -> int:
        driver = _sqlite(connection)
        (page,) = driver.execute("PRAGMA page_size").fetchone()
        (before,) = driver.execute("PRAGMA freelist_count").fetchone()
        # Without incremental vacuum (a file made by 0.1.0) this does nothing: pages are used again.
        driver.execute(f"PRAGMA incremental_vacuum({max(most // page, 1)})").fetchall()
        (after,) = driver.execute("PRAGMA freelist_count").fetchone()
        return int(before - after) * int(page)

    def wal_bytes(self) -> int:
        return self._wal.size() if self._wal is not None else 0

    def dispose(self) -> None:
        self._writers.dispose()
        self._readers.dispose()


def _sqlite(connection: sqlalchemy.Connection) -> sqlite3.Connection:
    return cast("sqlite3.Connection", connection.connection.dbapi_connection)
