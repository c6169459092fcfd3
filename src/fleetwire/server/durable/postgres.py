"""PostgreSQL connections as the server wants them (psycopg 3, synchronous), and their errors.

Transactions are written out, as on SQLite: the driver stays in autocommit, and `command` sends
BEGIN, SAVEPOINT, COMMIT by the simple query protocol, several in one round trip.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import errors, pq

from fleetwire.core.errors import FleetwireError
from fleetwire.server.durable.errors import CommitUnknown, DatabaseUnavailable, StorageFull

Connection = psycopg.Connection[tuple[Any, ...]]

_OPTIONS = " ".join(
    f"-c {setting}"
    for setting in (
        "synchronous_commit=on",
        "default_transaction_isolation=read\\ committed",
        "lock_timeout=10s",
        "idle_in_transaction_session_timeout=60s",
        "timezone=UTC",
    )
)

_RETRYABLE = (errors.SerializationFailure, errors.DeadlockDetected, errors.LockNotAvailable)
_LOST = (
    errors.AdminShutdown,
    errors.CrashShutdown,
    errors.CannotConnectNow,
    errors.IdleInTransactionSessionTimeout,
)


def connect(url: str, *, name: str) -> Connection:
    """Connect to `url` (``postgresql://...``); a dead peer is noticed within 15 s.

    Raises `DatabaseUnavailable`, which never shows the password.
    """
    try:
        return psycopg.connect(
            url,
            autocommit=True,
            application_name=f"fleetwire {name}",
            target_session_attrs="read-write",  # of several hosts, the primary
            options=_OPTIONS,
            connect_timeout=10,
            keepalives_idle=5,
            keepalives_interval=3,
            keepalives_count=3,
            tcp_user_timeout=15_000,
        )
    except psycopg.OperationalError as error:
        raise _unavailable(error) from error


def command(connection: Connection, sql: bytes) -> bytes:
    """Run transaction commands in one round trip; return the last command's tag."""
    result = connection.pgconn.exec_(sql)
    if result.status != pq.ExecStatus.COMMAND_OK:
        raise errors.error_from_result(result, encoding="utf-8")
    return result.command_status or b""


def commit(connection: Connection) -> None:
    """COMMIT. Raises `CommitUnknown` when the connection broke, else the database's own error."""
    try:
        tag = command(connection, b"COMMIT")
    except psycopg.Error as error:
        if is_lost(connection, error):
            msg = (
                "The connection to PostgreSQL broke during COMMIT, so it is not known whether the "
                "change is stored."
            )
            raise CommitUnknown(msg, hint="Read it again before you repeat it.") from error
        raise
    if tag != b"COMMIT":  # COMMIT of a failed transaction "succeeds" as ROLLBACK
        msg = f"COMMIT was answered {tag!r}: a statement had failed and nobody rolled it back"
        raise AssertionError(msg)


def is_lost(connection: Connection, error: BaseException) -> bool:
    """Tell whether the connection can no longer be used."""
    return (
        connection.closed
        or connection.pgconn.status != pq.ConnStatus.OK
        or isinstance(error, _LOST)
        or _is_of_libpq(error)
    )


def diagnose(error: BaseException) -> FleetwireError | None:
    """Return what `error` means to the server, or None where it is the statement's own fault."""
    if isinstance(error, errors.DiskFull):
        return StorageFull(
            "PostgreSQL cannot write, because its disk is full.",
            hint="Free some space there; then it goes on by itself.",
        )
    if isinstance(error, _RETRYABLE):
        return DatabaseUnavailable(
            "Another server changed the same rows at the same moment "
            f"({type(error).__name__}); nothing was stored.",
            hint="Try again.",
        )
    if isinstance(error, (psycopg.OperationalError, *_LOST)) or _is_of_libpq(error):
        return _unavailable(error)
    return None


def _is_of_libpq(error: BaseException) -> bool:
    """Tell whether it is libpq's own error: the database's have an SQLSTATE.

    libpq says so of a connection that broke, and may still call it OK: a server that crashes sends
    a notice before it closes, and the notice is read after the write has failed.
    """
    return (
        isinstance(error, psycopg.Error)
        and type(error) in {psycopg.DatabaseError, psycopg.OperationalError}
        and not error.sqlstate
    )


def _unavailable(error: BaseException) -> DatabaseUnavailable:
    # The first line only: what follows repeats the connection's parameters.
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return DatabaseUnavailable(
        f"PostgreSQL is not available ({reason}); nothing was stored.",
        hint="Check that it runs and that this server may reach it.",
    )
