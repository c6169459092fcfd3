"""The record's database: use cases in, commits out; queries beside them.

Every change goes through one writer thread, which commits what is queued together (architecture
5.11). A use case is a function of a `Tx` in a SAVEPOINT of its own: its error rolls back itself
only. Reads run on a few reader threads, each call in a snapshot of its own.

SQLAlchemy believes that it runs in autocommit: BEGIN, SAVEPOINT and COMMIT are written out here
and nowhere else, so that both databases do exactly what this file says.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias, TypeVar, cast

import sqlalchemy
import structlog

from fleetwire.core.audit import Act
from fleetwire.core.errors import FleetwireError
from fleetwire.server.durable.errors import (
    CommitFailed,
    CommitUnknown,
    DatabaseFailed,
    DatabaseUnavailable,
    StorageFull,
)
from fleetwire.server.durable.groupcommit import Group, GroupCommit
from fleetwire.server.durable.reserve import Reserve
from fleetwire.server.nudges.base import Nudges
from fleetwire.server.store import audit, migrations
from fleetwire.server.store.shell import Shell
from fleetwire.server.store.shell_sqlite import SqliteShell

__all__ = [
    "CommitFailed",
    "CommitUnknown",
    "Database",
    "DatabaseFailed",
    "DatabaseStatistics",
    "DatabaseUnavailable",
    "Reaction",
    "StorageFull",
    "Tx",
]

T = TypeVar("T")
_log = structlog.get_logger()

RECLAIMED_AT_ONCE = 8 * 1024 * 1024
"""Bytes of one step of `Database.reclaim`, whose pages are moved while the writer waits."""

READERS = 3
"""Reader threads: enough that one long query does not stop the others on two cores."""


class Tx:
    """What a use case works with. Valid only inside the use case.

    ``connection`` must not be committed or rolled back; ``now`` is wall time in microseconds
    since 1970, the same for the whole transaction.
    """

    __slots__ = ("_acts", "_afterwards", "_topics", "connection", "now")

    def __init__(self, connection: sqlalchemy.Connection, now: int) -> None:
        self.connection = connection
        self.now = now
        self._acts: list[Act] = []
        self._topics: list[str] = []
        self._afterwards: list[Callable[[], object]] = []

    def audit(self, act: Act) -> None:
        """Write what is done here into the audit, in the commit of this use case (P25): there is
        no entry without its action, and no action without its entry.
        """
        self._acts.append(act)

    def nudge(self, topic: str) -> None:
        """Nudge `topic` once this use case is committed; never if it is not."""
        self._topics.append(topic)

    def afterwards(self, call: Callable[[], object]) -> None:
        """Call it once this use case is committed, on the writer thread, in the order of the
        commits; never if it is not. It must be quick and must not raise.
        """
        self._afterwards.append(call)


Reaction: TypeAlias = Callable[[Tx, Collection[str]], Collection[str]]
"""A use case that runs in the same commit as what nudged it, after all others of the group: the
way of a run from its submission to its node is then one commit and not three.

It is given the topics that were nudged, and returns those for which nobody else need be nudged.
Like a nudge it is a hint: where it fails, it is rolled back alone, and a sweep does the work.
"""


@dataclass(frozen=True, slots=True)
class DatabaseStatistics:
    """Counters since `Database.open`."""

    commits: int
    """Transactions committed or failed, each a group of use cases."""
    use_cases: int
    """Use cases answered, failed ones among them."""
    largest_commit: int
    """Use cases of the largest group."""
    queued: int
    """Use cases that wait now."""
    write_seconds: float
    """Time that the writer thread was busy."""
    wal_bytes: int
    """Size of SQLite's write-ahead log; 0 on PostgreSQL."""


class _UseCase(Protocol):
    def __call__(self, tx: Tx, /) -> object: ...


class _Ran(NamedTuple):
    """What a use case returned, or why nothing of it is left."""

    result: object
    error: Exception | None


class _Done:
    """What a group has done so far. `fresh`: nothing was written since the savepoint."""

    def __init__(self, connection: sqlalchemy.Connection, now: int) -> None:
        self.connection = connection
        self.now = now
        self.fresh = True
        self.acts: list[Act] = []
        self.topics: dict[str, None] = {}
        self.afterwards: list[Callable[[], object]] = []

    def take(self, tx: Tx) -> None:
        """Take what a use case that succeeded wants to happen after the commit."""
        self.fresh = False
        self.acts += tx._acts  # noqa: SLF001 - two halves of one thing
        self.topics.update(dict.fromkeys(tx._topics))  # noqa: SLF001 - two halves of one thing
        self.afterwards += tx._afterwards  # noqa: SLF001 - two halves of one thing


class Database:
    """The record's database, SQLite or PostgreSQL. Made by `open`, ended by `close`.

    `reserve` is the room held back on its disk, where that disk is this server's to watch.
    """

    reserve: Reserve | None = None
    _version: int | None = 0

    def __init__(self, shell: Shell, nudges: Nudges, clock: Callable[[], int]) -> None:
        self._shell = shell
        self._nudges = nudges
        self._clock = clock
        self._connection: sqlalchemy.Connection | None = shell.connect()
        self._reactions: tuple[Reaction, ...] = ()
        self._spare: queue.SimpleQueue[sqlalchemy.Connection] = queue.SimpleQueue()
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="fleetwire-reader")
        self._writer: GroupCommit[_UseCase, object] = GroupCommit(
            "fleetwire-writer", self._commit_group, self._close_writer
        )

    @staticmethod
    def open(
        url: str,
        *,
        nudges: Nudges,
        clock: Callable[[], int],
        prepare: Callable[[sqlalchemy.Connection], None] = migrations.upgrade,
        reserve: Reserve | None = None,
    ) -> Database:
        """Open ``sqlite:///PATH`` or ``postgresql://...`` and bring its schema up to date.

        Blocks; call it before the event loop serves. `prepare` runs in one transaction that
        excludes other servers; only tests replace it. Raises `DatabaseUnavailable`,
        `DatabaseFailed`, or `migrations.SchemaTooNew`.
        """
        shell: Shell
        if url.startswith("sqlite:///"):
            shell = SqliteShell(url.removeprefix("sqlite:///"))
        elif url.startswith(("postgresql://", "postgres://")):
            # Imported here: psycopg costs memory and time that SQLite's users should not pay.
            from fleetwire.server.store.shell_postgres import PostgresShell  # noqa: PLC0415 - see above

            shell = PostgresShell(url)
        else:
            scheme = url.partition(":")[0]
            msg = f"A database URL cannot begin with {scheme!r}."
            raise FleetwireError(msg, hint="Write sqlite:///PATH or postgresql://USER@HOST/NAME.")
        with shell.migration() as connection:
            prepare(connection)
        database = Database(shell, nudges, clock)
        database.reserve = reserve
        return database

    async def write(self, use_case: Callable[[Tx], T], *, grows: bool = False) -> T:
        """Run `use_case` on the writer thread; return its result after COMMIT.

        What `grows` the record (a new run, a new node) is refused in time, and what must be
        recorded all the same (a stop, a report, a login) finds the disk's reserve (P15).

        What it raises is raised here, and nothing of it is stored. Otherwise raises
        `StorageFull`, `DatabaseUnavailable` or `CommitFailed` (nothing was stored),
        `CommitUnknown` (read again), `DatabaseFailed` (the process must end).

        Use cases run in the order of the calls. Cancelling is safe: the use case may still be
        committed, only its answer is lost. The use case must not block and must not keep `Tx`.
        """
        reserve = self.reserve
        if reserve is None:
            return cast("T", await self._writer.submit(use_case))
        if grows:
            reserve.check()
        try:
            return cast("T", await self._writer.submit(use_case))
        except StorageFull:
            # Nothing was stored. The disk was filled since the last look: this one makes room.
            await asyncio.to_thread(reserve.look)
            if grows:
                reserve.check()
                raise
        return cast("T", await self._writer.submit(use_case))

    def react(self, *reactions: Reaction) -> None:
        """Let these run with every commit from now on, in this order: what one nudges, the ones
        behind it see.
        """
        self._reactions = reactions

    async def read(self, query: Callable[[sqlalchemy.Connection], T]) -> T:
        """Run `query` on a reader thread, in one snapshot of what is committed.

        A write through it fails. Rows must be taken out inside `query`. Cancelling is safe.
        """
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, query)

    async def reclaim(self) -> int:
        """Give room that deleted rows have left back to the disk, in small steps; return how many
        bytes. PostgreSQL does it by itself, and a file made by release 0.1.0 cannot shrink: both
        use the room again.
        """
        freed = 0
        while True:
            step = await self.write(
                lambda tx: self._shell.reclaim(tx.connection, RECLAIMED_AT_ONCE)
            )
            freed += step
            if not step:
                return freed

    async def close(self) -> None:
        """Commit what is queued, then close every connection. Idempotent."""
        await self._writer.close()
        await asyncio.to_thread(self._readers.shutdown)
        while not self._spare.empty():
            self._spare.get_nowait().close()
        self._shell.dispose()

    async def wait_failed(self) -> DatabaseFailed:
        """Wait until the disk has failed; the caller ends the process then (promise P15)."""
        return await self._writer.wait_failed()

    def version(self) -> int | None:
        """Return a number that is another one after each commit that changed a row, or may have.
        None where other servers write as well.
        """
        return self._version

    def statistics(self) -> DatabaseStatistics:
        """Return the counters."""
        counted = self._writer.statistics()
        return DatabaseStatistics(
            commits=counted.groups,
            use_cases=counted.entries,
            largest_commit=counted.largest,
            queued=counted.queued,
            write_seconds=counted.seconds,
            wal_bytes=self._shell.wal_bytes(),
        )

    # -- reader threads ----------------------------------------------------------------------

    def _read(self, query: Callable[[sqlalchemy.Connection], T]) -> T:
        shell = self._shell
        try:
            connection = self._spare.get_nowait()
        except queue.Empty:  # at most one connection per reader thread ever exists
            connection = shell.connect(reader=True)
        try:
            shell.begin_read(connection)
            result = query(connection)
            shell.end_read(connection)
        except BaseException as error:
            if shell.abandon(connection, error):
                self._spare.put(connection)
            if meaning := shell.diagnose(error):
                raise meaning from error
            raise
        self._spare.put(connection)
        return result

    # -- the writer thread -------------------------------------------------------------------

    def _commit_group(self, group: Group[_UseCase, object]) -> None:
        shell = self._shell
        connection = self._connection
        if connection is None:  # the last group lost it
            connection = self._connection = shell.connect()
        before = shell.changes(connection)
        try:
            done = self._run_use_cases(connection, group)
        except BaseException as error:
            self._count_version()  # nobody knows what became of it
            self._drop_group(connection, error)
            if meaning := shell.diagnose(error):
                raise meaning from error
            raise
        if before is None:
            self._version = None
        elif shell.changes(connection) != before:
            self._count_version()
        for call in done.afterwards:
            call()
        for topic in done.topics:
            self._nudges.send(topic)

    def _run_use_cases(
        self, connection: sqlalchemy.Connection, group: Group[_UseCase, object]
    ) -> _Done:
        """Run the group's use cases and COMMIT. What it raises fails the whole group."""
        shell = self._shell
        shell.begin(connection)
        done = _Done(connection, self._clock())
        for entry in group:
            ran = self._run_one(entry.work, done)
            entry.result = ran.result
            if ran.error is not None:
                entry.error = shell.diagnose(ran.error) or ran.error
                if entry.error is not ran.error:
                    entry.error.__cause__ = ran.error
                if isinstance(entry.error, DatabaseFailed):
                    raise ran.error
        for reaction in self._reactions:
            self._run_reaction(reaction, done)
        if done.acts:
            # Last of all, and not in a savepoint: what cannot be audited is not done.
            audit.append(connection, done.acts, done.now)
        shell.commit(connection)
        return done

    def _run_one(self, work: Callable[[Tx], object], done: _Done) -> _Ran:
        """Run one use case in a savepoint: where it fails, nothing of it is left. Raises where
        the whole transaction is gone.
        """
        shell, connection = self._shell, done.connection
        if not done.fresh:
            shell.renew_savepoint(connection)
            done.fresh = True
        tx = Tx(connection, done.now)
        try:
            result = work(tx)
        except Exception as error:
            if not shell.in_transaction(connection):
                raise  # the database has rolled back the whole group by itself
            shell.return_to_savepoint(connection)
            return _Ran(None, error)
        if not shell.in_transaction(connection):
            msg = f"{work!r} has ended the transaction of its whole group"
            raise AssertionError(msg)
        done.take(tx)
        return _Ran(result, None)

    def _run_reaction(self, reaction: Reaction, done: _Done) -> None:
        ran = self._run_one(lambda tx: reaction(tx, done.topics), done)
        if ran.error is None:
            for topic in cast("Collection[str]", ran.result):
                done.topics.pop(topic, None)
            return
        error = self._shell.diagnose(ran.error) or ran.error
        if isinstance(error, DatabaseFailed):
            raise ran.error
        _log.error("a reaction failed; a sweep will do its work", exc_info=error)

    def _count_version(self) -> None:
        if self._version is not None:
            self._version += 1

    def _drop_group(self, connection: sqlalchemy.Connection, error: BaseException) -> None:
        if not self._shell.abandon(connection, error):
            self._connection = None

    def _close_writer(self) -> None:
        if self._connection is not None:
            self._connection.close()
