"""PostgreSQL, for `engine`; shared by any number of server processes."""

# ruff: noqa: D102 - documented once, at `shell.Shell`

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import psycopg
import sqlalchemy
from psycopg import pq

from fleetwire.core.errors import FleetwireError
from fleetwire.server.durable import postgres
from fleetwire.server.durable.errors import CommitUnknown
from fleetwire.server.store.shell import Shell, autocommit_engine, commit_failed, original

_IN_TRANSACTION = (pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR)


class PostgresShell(Shell):
    """PostgreSQL, shared by any number of server processes."""

    def __init__(self, url: str) -> None:
        self._writers = autocommit_engine(
            "postgresql+psycopg://", lambda: postgres.connect(url, name="writer")
        )
        self._readers = autocommit_engine(
            "postgresql+psycopg://", lambda: postgres.connect(url, name="reader")
        )

    def connect(self, *, reader: bool = False) -> sqlalchemy.Connection:
        return (self._readers if reader else self._writers).connect()

    @contextmanager
    def migration(self) -> Iterator[sqlalchemy.Connection]:
        with self.connect() as connection:
            driver = _postgres(connection)
            # Two servers that start together: the second waits here (the number is arbitrary).
            driver.execute("SET lock_timeout = 0")
            postgres.command(driver, b"BEGIN")
            driver.execute("SELECT pg_advisory_xact_lock(5067414957123)")
            try:
                yield connection
                postgres.commit(driver)
            finally:
                if driver.pgconn.transaction_status in _IN_TRANSACTION:
                    postgres.command(driver, b"ROLLBACK")

    def begin(self, connection: sqlalchemy.Connection) -> None:
        postgres.command(_postgres(connection), b"BEGIN; SAVEPOINT one")

    def renew_savepoint(self, connection: sqlalchemy.Connection) -> None:
        postgres.command(_postgres(connection), b"RELEASE one; SAVEPOINT one")

    def return_to_savepoint(self, connection: sqlalchemy.Connection) -> None:
        postgres.command(_postgres(connection), b"ROLLBACK TO one")

    def commit(self, connection: sqlalchemy.Connection) -> None:
        try:
            postgres.commit(_postgres(connection))
        except psycopg.IntegrityError as error:
            raise commit_failed(error) from error

    def in_transaction(self, connection: sqlalchemy.Connection) -> bool:
        return (
            not connection.invalidated
            and _postgres(connection).pgconn.transaction_status in _IN_TRANSACTION
        )

    def changes(self, connection: sqlalchemy.Connection) -> int | None:
        del connection
        return None

    def begin_read(self, connection: sqlalchemy.Connection) -> None:
        postgres.command(_postgres(connection), b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

    def end_read(self, connection: sqlalchemy.Connection) -> None:
        postgres.command(_postgres(connection), b"COMMIT")

    def abandon(self, connection: sqlalchemy.Connection, error: BaseException) -> bool:
        if connection.invalidated:
            connection.close()
            return False
        driver = _postgres(connection)
        lost = isinstance(error, CommitUnknown) or postgres.is_lost(driver, original(error))
        if not lost and driver.pgconn.transaction_status in _IN_TRANSACTION:
            try:
                postgres.command(driver, b"ROLLBACK")
            except psycopg.Error:
                lost = True  # a connection that cannot even roll back is replaced
        if lost:
            driver.close()  # first, so that SQLAlchemy has nothing to roll back
            connection.invalidate()
            connection.close()
        return not lost

    def diagnose(self, error: BaseException) -> FleetwireError | None:
        return postgres.diagnose(original(error))

    def reclaim(self, connection: sqlalchemy.Connection, most: int) -> int:
        del connection, most
        return 0  # its own autovacuum does it

    def wal_bytes(self) -> int:
        return 0

    def dispose(self) -> None:
        self._writers.dispose()
        self._readers.dispose()


def _postgres(connection: sqlalchemy.Connection) -> postgres.Connection:
    return cast("postgres.Connection", connection.connection.dbapi_connection)
