"""Log segments in SQLite: ``{folder}/{segment}.db``, one file a day, used by one server process.

Blobs are in a rowid table, which only ever grows at its end; two small indexes find them by
offset and by line. Deleting a segment is deleting its file; ``{segment}.gone`` keeps the reason.
"""

# ruff: noqa: D102 - documented once, at `backend.Backend`

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fleetwire.core.errors import FleetwireError
from fleetwire.server.durable import sqlite
from fleetwire.server.logs.backend import Address, Backend, Extent, Row
from fleetwire.server.logs.base import LogGone

_SCHEMA = """
CREATE TABLE attempts (
  id INTEGER PRIMARY KEY,
  attempt BLOB NOT NULL UNIQUE,
  length INTEGER NOT NULL,
  newlines INTEGER NOT NULL,
  is_open INTEGER NOT NULL
) STRICT;
CREATE TABLE chunks (
  id INTEGER PRIMARY KEY,
  attempt INTEGER NOT NULL,
  offset INTEGER NOT NULL,
  length INTEGER NOT NULL,
  line INTEGER NOT NULL,
  lines INTEGER NOT NULL,
  time_us INTEGER NOT NULL,
  body BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX chunks_by_offset ON chunks (attempt, offset);
CREATE INDEX chunks_by_line ON chunks (attempt, line, offset);
"""

_COLUMNS = "chunks.offset, chunks.length, chunks.line, chunks.lines, chunks.time_us, chunks.body"

_ROWS = f"""
SELECT {_COLUMNS} FROM attempts JOIN chunks ON chunks.attempt = attempts.id
WHERE attempts.attempt = ?1 AND chunks.offset >= coalesce((
  SELECT max(c.offset) FROM chunks c WHERE c.attempt = attempts.id AND c.offset <= ?2), 0)
  AND chunks.offset + chunks.length > ?2
ORDER BY chunks.offset LIMIT ?3
"""  # noqa: S608 - constants only

_ROW_BEFORE_LINE = f"""
SELECT {_COLUMNS} FROM attempts JOIN chunks ON chunks.attempt = attempts.id
WHERE attempts.attempt = ? AND chunks.line < ? ORDER BY chunks.line DESC, chunks.offset DESC LIMIT 1
"""  # noqa: S608 - constants only

_PAGE = 16 * 1024  # large blobs: a fifth less CPU than pages of 4 KiB
_MOST_WRITERS = 4
_CACHE_KIB = 4096  # a log is written once and mostly read from end to end
_MOST_SPARE = 6  # idle reading connections, of whichever segments


class _Segment(NamedTuple):
    connection: sqlite3.Connection
    wal: sqlite.WalBound


class SqliteBackend(Backend):
    """`Backend` on a folder of SQLite files."""

    exclusive = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The one process that writes here hands out the link epochs, and they only grow.
        self._links: dict[str, int] = {}
        self._new_links: dict[str, int] = {}
        self._writers: dict[str, _Segment] = {}
        self._begun: set[str] = set()
        self._keys: dict[Address, int] = {}
        self._lock = threading.Lock()
        self._spare: list[tuple[str, sqlite3.Connection]] = []  # the one used last is the last
        self._gone: dict[str, str] = {file.stem: file.read_text() for file in folder.glob("*.gone")}
        for segment in self._gone:
            _unlink(self._path(segment))

    # -- writing -----------------------------------------------------------------------------

    def begin(self) -> None:
        pass  # each segment begins when it is first touched

    def links(self, nodes: set[str]) -> dict[str, int]:
        both = (self._links, self._new_links)
        return {node: links[node] for links in both for node in nodes if node in links}

    def extents_to_write(self, addresses: set[Address]) -> dict[Address, Extent | FleetwireError]:
        found: dict[Address, Extent | FleetwireError] = {}
        for address in addresses:
            if reason := self._gone.get(address.segment):
                found[address] = LogGone(address.segment, reason)
                continue
            row = self._begin(address.segment).execute(_EXTENT, (_key(address),)).fetchone()
            found[address] = Extent()
            if row is not None:
                self._keys[address] = row[0]
                found[address] = Extent(row[1], row[2], bool(row[3]))
        return found

    def put_link(self, node: str, link_epoch: int) -> None:
        self._new_links[node] = link_epoch

    def put_rows(self, rows: list[tuple[Address, Row]], extents: dict[Address, Extent]) -> None:
        for address, extent in extents.items():
            (self._keys[address],) = (
                self._begin(address.segment)
                .execute(
                    "INSERT INTO attempts (attempt, length, newlines, is_open) VALUES (?, ?, ?, ?) "
                    "ON CONFLICT (attempt) DO UPDATE SET length = excluded.length, "
                    "newlines = excluded.newlines, is_open = excluded.is_open RETURNING id",
                    (_key(address), *extent),
                )
                .fetchone()
            )
        for address, row in rows:
            self._begin(address.segment).execute(
                "INSERT INTO chunks (attempt, offset, length, line, lines, time_us, body) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (self._keys[address], *row),
            )
        self._keys.clear()

    def clear(self, address: Address) -> None:
        self._begin(address.segment).execute(
            "DELETE FROM chunks WHERE attempt = (SELECT id FROM attempts WHERE attempt = ?)",
            (_key(address),),
        )

    def drop(self, segment: str, reason: str) -> None:
        if segment in self._gone:
            return
        path = self._path(segment)
        marker = path.with_suffix(".gone")
        # The reason first: a crash between the two leaves a file that nobody reads, which the
        # next start deletes.
        _write_durably(marker, reason)
        self._gone[segment] = reason
        if writer := self._writers.pop(segment, None):
            writer.connection.close()
        with self._lock:
            while connection := self._take_spare(segment):
                connection.close()
        _unlink(path)

    def commit(self) -> None:
        # One COMMIT a segment: if a later one fails, everybody is told so; what an earlier one
        # has stored is found as length when it is sent again, and skipped.
        for segment in list(self._begun):
            self._writers[segment].connection.execute("COMMIT")
            self._begun.discard(segment)
            self._writers[segment].wal.check()
        self._links.update(self._new_links)
        self._new_links.clear()

    def rollback(self, error: BaseException) -> None:
        del error
        self._keys.clear()
        self._new_links.clear()
        for segment in self._begun:
            # Closing undoes for certain, even where a broken disk would refuse ROLLBACK.
            self._writers.pop(segment).connection.close()
        self._begun.clear()

    def diagnose(self, error: BaseException) -> FleetwireError | None:
        return sqlite.diagnose(error, self._folder)

    def close_writer(self) -> None:
        for writer in self._writers.values():
            writer.connection.close()
        self._writers.clear()

    def _begin(self, segment: str) -> sqlite3.Connection:
        if segment in self._begun:
            return self._writers[segment].connection
        if segment not in self._writers:
            for old in [old for old in self._writers if old not in self._begun]:
                if len(self._writers) < _MOST_WRITERS:
                    break
                self._writers.pop(old).connection.close()
            path = self._path(segment)
            if not path.exists():
                _create(path)
            connection = sqlite.connect(path, cache_kib=_CACHE_KIB)
            self._writers[segment] = _Segment(connection, sqlite.WalBound(connection, path))
        connection = self._writers[segment].connection
        connection.execute("BEGIN IMMEDIATE")
        self._begun.add(segment)
        return connection

    # -- reading -----------------------------------------------------------------------------

    def segments(self) -> dict[str, int]:
        found = {}
        for path in self._folder.glob("*.db"):
            with contextlib.suppress(FileNotFoundError):  # it was deleted just now
                found[path.stem] = sum(file.stat().st_size for file in _files(path))
        return {name: size for name, size in found.items() if name not in self._gone}

    def extent(self, address: Address) -> Extent:
        with self._reader(address.segment) as connection:
            if connection is None:
                return Extent()
            row = connection.execute(_EXTENT, (_key(address),)).fetchone()
            return Extent(row[1], row[2], bool(row[3])) if row else Extent()

    def extents(self, addresses: list[Address]) -> dict[Address, Extent]:
        found = {}
        for address in addresses:
            with contextlib.suppress(LogGone):
                found[address] = self.extent(address)
        return found

    def rows(self, address: Address, offset: int, count: int) -> list[Row]:
        with self._reader(address.segment) as connection:
            if connection is None:
                return []
            return [Row._make(r) for r in connection.execute(_ROWS, (_key(address), offset, count))]

    def row_before_line(self, address: Address, line: int) -> Row | None:
        with self._reader(address.segment) as connection:
            if connection is None:
                return None
            row = connection.execute(_ROW_BEFORE_LINE, (_key(address), line)).fetchone()
            return Row._make(row) if row else None

    def close_readers(self) -> None:
        with self._lock:
            for _, connection in self._spare:
                connection.close()
            self._spare.clear()

    @contextlib.contextmanager
    def _reader(self, segment: str) -> Iterator[sqlite3.Connection | None]:
        """Lend a reading connection; None where the segment has no file yet."""
        with self._lock:
            if reason := self._gone.get(segment):
                raise LogGone(segment, reason)
            connection = self._take_spare(segment)
        if connection is None:
            path = self._path(segment)
            if not path.exists():
                yield None
                return
            try:
                connection = sqlite.connect(path, reader=True, cache_kib=_CACHE_KIB)
            except FleetwireError:
                if reason := self._gone.get(segment):  # it was deleted just now
                    raise LogGone(segment, reason) from None
                raise
        try:
            yield connection
        finally:
            with self._lock:
                if segment in self._gone:
                    connection.close()
                else:
                    self._spare.append((segment, connection))
                if len(self._spare) > _MOST_SPARE:
                    _, oldest = self._spare.pop(0)
                    oldest.close()

    def _take_spare(self, segment: str) -> sqlite3.Connection | None:
        """Take an idle connection, the one used last; the lock is held."""
        for index in range(len(self._spare) - 1, -1, -1):
            if self._spare[index][0] == segment:
                return self._spare.pop(index)[1]
        return None

    def _path(self, segment: str) -> Path:
        return self._folder / f"{segment}.db"


_EXTENT = "SELECT id, length, newlines, is_open FROM attempts WHERE attempt = ?"


def _key(address: Address) -> bytes:
    return uuid.UUID(address.attempt).bytes


def _files(path: Path) -> list[Path]:
    """Return the files of a database that are there."""
    files = [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm")]
    return [file for file in files if file.exists()]


def _unlink(path: Path) -> None:
    for file in _files(path):
        file.unlink(missing_ok=True)


def _create(path: Path) -> None:
    """Make a segment's file in one step: readers find it with its tables, or not at all."""
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    connection = sqlite.connect(temporary, page_size=_PAGE)
    try:
        connection.executescript(_SCHEMA)
    finally:
        connection.close()  # which moves the write-ahead log into the file
    temporary.replace(path)
    _sync_folder(path.parent)


def _write_durably(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
