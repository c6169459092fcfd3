"""What differs between SQLite and PostgreSQL for `engine`: connecting and transactions.

Both shells hand out SQLAlchemy connections whose driver is in autocommit; every BEGIN,
SAVEPOINT and COMMIT goes straight to the driver (SQLAlchemy's own savepoints cost several times
a small statement).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import sqlalchemy
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from fleetwire.core.errors import FleetwireError
from fleetwire.server.durable.errors import CommitFailed


class Shell(Protocol):
    """One database, as `engine.Database` sees it. All of it blocks."""

    def connect(self, *, reader: bool = False) -> sqlalchemy.Connection:
        """Open a connection."""
        ...

    def migration(self) -> AbstractContextManager[sqlalchemy.Connection]:
        """Give a connection in a transaction that excludes other servers; commit at the end."""
        ...

    def begin(self, connection: sqlalchemy.Connection) -> None:
        """Begin a writing transaction with a first savepoint."""
        ...

    def renew_savepoint(self, connection: sqlalchemy.Connection) -> None:
        """Keep what was done since the savepoint, and set the next one."""
        ...

    def return_to_savepoint(self, connection: sqlalchemy.Connection) -> None:
        """Undo what was done since the savepoint, which stays."""
        ...

    def commit(self, connection: sqlalchemy.Connection) -> None:
        """COMMIT; raises `CommitFailed` where the database refuses, `CommitUnknown`."""
        ...

    def in_transaction(self, connection: sqlalchemy.Connection) -> bool:
        """Tell whether the transaction is still there."""
        ...

    def changes(self, connection: sqlalchemy.Connection) -> int | None:
        """Return how many rows this connection has changed in its life; None where other
        processes may change rows as well.
        """
        ...

    def begin_read(self, connection: sqlalchemy.Connection) -> None:
        """Begin a snapshot."""
        ...

    def end_read(self, connection: sqlalchemy.Connection) -> None:
        """End it."""
        ...

    def abandon(self, connection: sqlalchemy.Connection, error: BaseException) -> bool:
        """Roll back after `error`. False: the connection is closed and must be replaced."""
        ...

    def diagnose(self, error: BaseException) -> FleetwireError | None:
        """Return what `error` means to the server; None where the statement is at fault."""
        ...

    def reclaim(self, connection: sqlalchemy.Connection, most: int) -> int:
        """Give up to `most` bytes that no row uses back to the disk, within the transaction;
        return how many.
        """
        ...

    def wal_bytes(self) -> int:
        """Return the size of the write-ahead log, where it is ours to bound."""
        ...

    def dispose(self) -> None:
        """Forget everything cached."""
        ...


def autocommit_engine(url: str, creator: Callable[[], Any]) -> sqlalchemy.Engine:
    """Return an engine whose connections stay in autocommit, for the shell to write BEGIN."""
    # NullPool: each connection belongs to one thread of `engine.Database` for its whole life.
    return sqlalchemy.create_engine(
        url, creator=creator, poolclass=NullPool, isolation_level="AUTOCOMMIT"
    )


def original(error: BaseException) -> BaseException:
    """Return the driver's own error inside SQLAlchemy's."""
    return error.orig if isinstance(error, DBAPIError) and error.orig else error


def commit_failed(error: BaseException) -> CommitFailed:
    """Return the error of a whole group whose COMMIT was refused."""
    return CommitFailed(
        f"The database refused the COMMIT ({str(error).splitlines()[0]}); "
        "nothing of its group was stored.",
        hint="Try again; if it stays so, report it with this message.",
    )
