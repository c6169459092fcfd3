"""Log segments in PostgreSQL: a pair of tables a day, shared by any number of servers.

Why tables and no declared partitions: a day is made and dropped without touching the others'
locks, and every query names its day anyway. Link epochs are rows here, locked while appends of
the link are committed, so that a newer link's fence waits for them and stops all later ones.
"""

# ruff: noqa: D102 - documented once, at `backend.Backend`

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterator
from typing import Any, LiteralString, cast

import psycopg
from psycopg import errors, pq, sql

from fleetwire.core.errors import FleetwireError
from fleetwire.server.durable import postgres
from fleetwire.server.durable.errors import CommitUnknown
from fleetwire.server.durable.postgres import Connection
from fleetwire.server.logs.backend import Address, Backend, Extent, Row
from fleetwire.server.logs.base import LogGone

_SETUP = """
SELECT pg_advisory_xact_lock(5067414957124);
CREATE SCHEMA IF NOT EXISTS fleetwire_logs;
CREATE TABLE IF NOT EXISTS fleetwire_logs.links (
  node text PRIMARY KEY,
  link_epoch bigint NOT NULL
);
CREATE TABLE IF NOT EXISTS fleetwire_logs.segments (
  segment text PRIMARY KEY,
  gone text
);
"""

_SEGMENT = """
CREATE TABLE IF NOT EXISTS {attempts} (
  attempt uuid PRIMARY KEY,
  length bigint NOT NULL DEFAULT 0,
  newlines bigint NOT NULL DEFAULT 0,
  is_open boolean NOT NULL DEFAULT false
);
CREATE TABLE IF NOT EXISTS {chunks} (
  attempt uuid NOT NULL,
  "offset" bigint NOT NULL,
  length bigint NOT NULL,
  line bigint NOT NULL,
  lines integer NOT NULL,
  time_us bigint NOT NULL,
  body bytea NOT NULL,
  PRIMARY KEY (attempt, "offset")
);
ALTER TABLE {chunks} ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE INDEX IF NOT EXISTS {by_line} ON {chunks} (attempt, line, "offset");
INSERT INTO fleetwire_logs.segments (segment) VALUES ({segment}) ON CONFLICT DO NOTHING;
"""  # EXTERNAL: a body is zstd already

_COLUMNS = '"offset", length, line, lines, time_us, body'

_ROWS = f"""
SELECT {_COLUMNS} FROM {{chunks}} WHERE attempt = %(attempt)s AND "offset" >= coalesce((
  SELECT max("offset") FROM {{chunks}} WHERE attempt = %(attempt)s AND "offset" <= %(offset)s), 0)
  AND "offset" + length > %(offset)s
ORDER BY "offset" LIMIT %(count)s
"""  # noqa: S608 - constants only

_ROW_BEFORE_LINE = f"""
SELECT {_COLUMNS} FROM {{chunks}} WHERE attempt = %s AND line < %s
ORDER BY line DESC, "offset" DESC LIMIT 1
"""  # noqa: S608 - constants only


class PostgresBackend(Backend):
    """`Backend` on a PostgreSQL database; reading connections are made as they are needed."""

    exclusive = False

    def __init__(self, url: str) -> None:
        self._url = url
        self._writer: Connection | None = self._connect("log writer")
        self._made: set[str] = set()  # segments known to have their tables
        self._spare: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        with self._writer.transaction():
            self._writer.execute(_SETUP)

    def _connect(self, name: str) -> Connection:
        return postgres.connect(self._url, name=name)

    # -- writing -----------------------------------------------------------------------------

    def begin(self) -> None:
        if self._writer is None:
            self._writer = self._connect("log writer")
        postgres.command(self._writer, b"BEGIN")

    def links(self, nodes: set[str]) -> dict[str, int]:
        if not nodes:
            return {}
        rows = self._now.execute(
            "SELECT node, link_epoch FROM fleetwire_logs.links WHERE node = ANY(%s) "
            "ORDER BY node FOR SHARE",
            (list(nodes),),
        )
        return dict(cast("Iterator[tuple[str, int]]", iter(rows)))

    def extents_to_write(self, addresses: set[Address]) -> dict[Address, Extent | FleetwireError]:
        found: dict[Address, Extent | FleetwireError] = {}
        for segment in sorted({address.segment for address in addresses}):
            mine = sorted(a.attempt for a in addresses if a.segment == segment)
            if reason := self._make(segment):
                for attempt in mine:
                    found[Address(segment, attempt)] = LogGone(segment, reason)
                continue
            # The row is locked, and made first where it is missing, so that two servers never
            # append to the same log at once.
            self._now.execute(
                _with_names(
                    "INSERT INTO {attempts} (attempt) SELECT unnest(%s::uuid[]) "
                    "ON CONFLICT DO NOTHING",
                    segment,
                ),
                (mine,),
            )
            rows = self._now.execute(
                _with_names(
                    "SELECT attempt, length, newlines, is_open FROM {attempts} "
                    "WHERE attempt = ANY(%s::uuid[]) ORDER BY attempt FOR UPDATE",
                    segment,
                ),
                (mine,),
            )
            for attempt, length, newlines, is_open in rows:
                found[Address(segment, str(attempt))] = Extent(length, newlines, is_open)
        return found

    def put_link(self, node: str, link_epoch: int) -> None:
        self._now.execute(
            "INSERT INTO fleetwire_logs.links (node, link_epoch) VALUES (%s, %s) "
            "ON CONFLICT (node) DO UPDATE SET "
            "link_epoch = greatest(links.link_epoch, excluded.link_epoch)",
            (node, link_epoch),
        )

    def put_rows(self, rows: list[tuple[Address, Row]], extents: dict[Address, Extent]) -> None:
        segments = {a.segment for a, _ in rows} | {a.segment for a in extents}
        cursor = self._now.cursor()
        for segment in sorted(segments):
            mine = [(a.attempt, *row) for a, row in rows if a.segment == segment]
            if mine:
                names = _with_names(
                    'INSERT INTO {chunks} (attempt, "offset", length, line, lines, time_us, body) '
                    "VALUES (%s, %s, %s, %s, %s, %s, %b)",
                    segment,
                )
                cursor.executemany(names, mine)
            reached = [
                (a.attempt, *extent) for a, extent in extents.items() if a.segment == segment
            ]
            if reached:
                names = _with_names(
                    "INSERT INTO {attempts} (attempt, length, newlines, is_open) "
                    "VALUES (%s, %s, %s, %s) ON CONFLICT (attempt) DO UPDATE SET "
                    "length = excluded.length, newlines = excluded.newlines, "
                    "is_open = excluded.is_open",
                    segment,
                )
                cursor.executemany(names, reached)

    def clear(self, address: Address) -> None:
        query = _with_names("DELETE FROM {chunks} WHERE attempt = %s", address.segment)
        self._now.execute(query, (address.attempt,))

    def drop(self, segment: str, reason: str) -> None:
        if self._writer is None:
            self._writer = self._connect("log writer")
        with self._writer.transaction():
            self._writer.execute(
                "INSERT INTO fleetwire_logs.segments (segment, gone) VALUES (%s, %s) "
                "ON CONFLICT (segment) DO UPDATE SET gone = coalesce(segments.gone, excluded.gone)",
                (segment, reason),
            )
            self._writer.execute(_with_names("DROP TABLE IF EXISTS {chunks}, {attempts}", segment))

    def commit(self) -> None:
        postgres.commit(self._now)

    def rollback(self, error: BaseException) -> None:
        self._made.clear()  # tables made in this transaction are gone again
        writer = self._writer
        if writer is None:
            return
        lost = postgres.is_lost(writer, error)
        if not lost and not isinstance(error, CommitUnknown):
            try:
                postgres.command(writer, b"ROLLBACK")
            except psycopg.Error:
                lost = True  # a connection that cannot even roll back is replaced
        if lost or isinstance(error, CommitUnknown):
            writer.close()
            self._writer = None

    def diagnose(self, error: BaseException) -> FleetwireError | None:
        return postgres.diagnose(error)

    def close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()

    @property
    def _now(self) -> Connection:
        if self._writer is None:
            raise AssertionError("writing needs begin first")
        return self._writer

    def _make(self, segment: str) -> str | None:
        """Make the tables of a segment that is new; return the reason where it is gone.

        The row stays locked until commit, so that no server can drop the segment meanwhile.
        """
        row = self._segment_row(segment)
        if row is None or (row[0] is None and segment not in self._made):
            self._now.execute("SELECT pg_advisory_xact_lock(5067414957124)")
            self._now.execute(_with_names(_SEGMENT, segment))
            row = self._segment_row(segment)
        if row is None:
            raise AssertionError("the segment's row was just made")
        self._made.add(segment)
        return cast("str | None", row[0])

    def _segment_row(self, segment: str) -> tuple[Any, ...] | None:
        return self._now.execute(
            "SELECT gone FROM fleetwire_logs.segments WHERE segment = %s FOR SHARE", (segment,)
        ).fetchone()

    # -- reading -----------------------------------------------------------------------------

    def segments(self) -> dict[str, int]:
        with self._reader() as connection:
            rows = connection.execute(
                "SELECT segment, coalesce((SELECT sum(pg_total_relation_size(c.oid)) "
                "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
                "WHERE n.nspname = 'fleetwire_logs' AND c.relname IN ("
                "'chunks_' || replace(segment, '-', '_'), "
                "'attempts_' || replace(segment, '-', '_'))), 0)::bigint "
                "FROM fleetwire_logs.segments WHERE gone IS NULL"
            ).fetchall()
        return dict(cast("list[tuple[str, int]]", rows))

    def extent(self, address: Address) -> Extent:
        rows = self._query(
            address.segment,
            "SELECT length, newlines, is_open FROM {attempts} WHERE attempt = %s",
            (address.attempt,),
        )
        return Extent._make(rows[0]) if rows else Extent()

    def extents(self, addresses: list[Address]) -> dict[Address, Extent]:
        found: dict[Address, Extent] = {}
        for segment in {address.segment for address in addresses}:
            mine = [address for address in addresses if address.segment == segment]
            try:
                rows = self._query(
                    segment,
                    "SELECT attempt, length, newlines, is_open FROM {attempts} "
                    "WHERE attempt = ANY(%s::uuid[])",
                    ([address.attempt for address in mine],),
                )
            except LogGone:
                continue
            found.update((address, Extent()) for address in mine)
            for attempt, *rest in rows:
                found[Address(segment, str(attempt))] = Extent._make(rest)
        return found

    def rows(self, address: Address, offset: int, count: int) -> list[Row]:
        values = {"attempt": address.attempt, "offset": offset, "count": count}
        return [Row._make(row) for row in self._query(address.segment, _ROWS, values)]

    def row_before_line(self, address: Address, line: int) -> Row | None:
        rows = self._query(address.segment, _ROW_BEFORE_LINE, (address.attempt, line))
        return Row._make(rows[0]) if rows else None

    def close_readers(self) -> None:
        while not self._spare.empty():
            self._spare.get_nowait().close()

    def _query(
        self, segment: str, query: LiteralString, values: tuple[object, ...] | dict[str, object]
    ) -> list[tuple[Any, ...]]:
        with self._reader() as connection:
            try:
                return connection.execute(
                    _with_names(query, segment), values, binary=True
                ).fetchall()
            except errors.UndefinedTable:
                row = connection.execute(
                    "SELECT gone FROM fleetwire_logs.segments WHERE segment = %s", (segment,)
                ).fetchone()
                if row is not None and row[0] is not None:
                    raise LogGone(segment, row[0]) from None
                return []  # nothing was written on that day yet

    @contextlib.contextmanager
    def _reader(self) -> Iterator[Connection]:
        try:
            connection = self._spare.get_nowait()
        except queue.Empty:
            connection = self._connect("log reader")
        try:
            yield connection
        finally:
            if connection.closed or connection.pgconn.status != pq.ConnStatus.OK:
                connection.close()
            else:
                self._spare.put(connection)


def _with_names(query: LiteralString, segment: str) -> sql.Composed:
    """Fill in the names of a segment's tables, and the segment itself as a literal."""
    day = segment.replace("-", "_")
    return sql.SQL(query).format(
        attempts=sql.Identifier("fleetwire_logs", f"attempts_{day}"),
        chunks=sql.Identifier("fleetwire_logs", f"chunks_{day}"),
        by_line=sql.Identifier(f"chunks_{day}_by_line"),
        segment=sql.Literal(segment),
    )
