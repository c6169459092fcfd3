"""SQLite connections as the server wants them, and what its errors mean.

The driver's own transaction logic is off (``isolation_level=None``): BEGIN, SAVEPOINT and
COMMIT are written out where they happen, because pysqlite's implicit BEGIN is deferred, comes
only before some statements, and commits at others.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from fleetwire.core.errors import FleetwireError
from fleetwire.server.durable.errors import DatabaseFailed, DatabaseUnavailable, StorageFull

BUSY_SECONDS = 5.0
"""How long a statement waits for another process's lock."""

CHECKPOINT_BYTES = 16 * 1024 * 1024
"""A commit that leaves more than this in the WAL copies it into the database."""

WAL_BOUND = 64 * 1024 * 1024
"""Above this the WAL is cut to nothing, which waits a moment for readers to get out of it."""

_TRUNCATE_WAIT_MS = 250

CACHE_KIB = 8192
"""The rest of the file is in the machine's own cache: more of it here is the same bytes twice."""

_FATAL = {
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_READONLY,
}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def connect(
    path: Path,
    *,
    reader: bool = False,
    foreign_keys: bool = True,
    page_size: int = 4096,
    shrinks: bool = False,
    cache_kib: int = CACHE_KIB,
) -> sqlite3.Connection:
    """Open `path` (created with mode 0600, folder entry fsynced) in WAL mode, FULL sync.

    `page_size` (bytes) and `shrinks` (its unused pages can be given back) hold for a file that is
    new. `cache_kib` is what a writer keeps of the file in memory. The connection may move between
    threads, but only one may use it at a time. A `reader` refuses every write (``query_only``).
    Raises what `diagnose` makes of SQLite's errors.
    """
    if not reader:
        _create(path)
    try:
        connection = sqlite3.connect(
            # A reader never makes the file: it may have been deleted just now.
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        try:
            if not reader:
                connection.execute(f"PRAGMA page_size = {page_size}")
                if shrinks:
                    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
                connection.execute("PRAGMA journal_mode = WAL").fetchone()
            connection.execute("PRAGMA synchronous = FULL")
            # What a savepoint would restore is kept in memory: beyond 64 KiB SQLite writes it to
            # files in /var/tmp, two writes a page, on a disk that is nobody's to watch (P15).
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute(f"PRAGMA foreign_keys = {'ON' if foreign_keys else 'OFF'}")
            # A fourth for a reader: there are several, and they look at what is new.
            connection.execute(f"PRAGMA cache_size = {-(cache_kib // 4 if reader else cache_kib)}")
            (page_size,) = connection.execute("PRAGMA page_size").fetchone()
            pages = CHECKPOINT_BYTES // page_size
            connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")
            connection.execute(f"PRAGMA journal_size_limit = {WAL_BOUND}")
            if reader:
                connection.execute("PRAGMA query_only = ON")
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise (diagnose(error, path) or error) from error
    return connection


def _create(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def diagnose(error: BaseException, path: Path) -> FleetwireError | None:
    """Return what `error` means to the server, or None where it is the statement's own fault."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return None
    primary = code & 0xFF
    name = getattr(error, "sqlite_errorname", str(code))
    # The index of the write-ahead log grows by writes that say nothing of why they failed; no
    # fsync is among them.
    if primary == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE:
        return StorageFull(
            f"Cannot write to {path}, because its disk is full.",
            hint="Free some space there; then it goes on by itself.",
        )
    if primary == sqlite3.SQLITE_CANTOPEN:
        return DatabaseUnavailable(
            f"{path} cannot be opened ({error}).",
            hint="Check that its folder exists, its owner, and the limit of open files.",
        )
    if primary in _BUSY:
        return DatabaseUnavailable(
            f"{path} is locked by another process ({name}).",
            hint="Only one server may use a data directory: end the other program.",
        )
    # Plain READONLY is a reader that tried to write: the statement's fault, not the disk's.
    if primary in _FATAL and code != sqlite3.SQLITE_READONLY:
        return DatabaseFailed(
            f"{path} cannot be used, because of {name} ({error}).",
            hint="Check the disk and the file's owner, then start the server again.",
        )
    return None


class WalBound:
    """Keeps the WAL file bounded although readers can stop the automatic checkpoint's reset.

    Call `check` between two groups, on the writer thread. SQLite's own checkpoint copies pages
    without waiting for anybody; only when the file outgrows `WAL_BOUND` this one waits.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._wal = path.with_name(f"{path.name}-wal")
        self._next = WAL_BOUND

    def size(self) -> int:
        """Return the WAL's size in bytes."""
        try:
            return self._wal.stat().st_size
        except FileNotFoundError:
            return 0

    def check(self) -> None:
        """Truncate the WAL if it is too large; if readers are in the way, at twice the size."""
        size = self.size()
        if size < self._next:
            return
        self._connection.execute(f"PRAGMA busy_timeout = {_TRUNCATE_WAIT_MS}")
        try:
            row = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            self._connection.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")
        blocked = row is None or row[0] != 0
        self._next = size * 2 if blocked else WAL_BOUND
