"""The record's database in the simulation: the engine's own code without its threads.

`SimulatedDatabase` is the real `Database` over a real SQLite file: use cases, savepoints,
reactions, `Tx.afterwards` and snapshots are those of `server.store.engine`. Only two things are
replaced: the writer thread, by a queue that is worked off in the virtual loop (`OneByOne`), and
the COMMIT, which may be refused, done and reported as unknown, or be the moment of a crash.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, cast

import structlog

from fleetwire.core.errors import FleetwireError
from fleetwire.server.durable.errors import CommitFailed, CommitUnknown, DatabaseFailed
from fleetwire.server.durable.groupcommit import Entry, Group, GroupCommit
from fleetwire.server.nudges.memory import MemoryNudges
from fleetwire.server.store.engine import Database, Tx
from fleetwire.server.store.shell_sqlite import SqliteShell
from fleetwire.testing.simulation.loop import ProcessKilled, VirtualLoop, check_alive

W = TypeVar("W")
R = TypeVar("R")
CommitFate: TypeAlias = Literal["done", "refused", "unknown", "unknown-lost", "crash", "crash-done"]
"""What becomes of a COMMIT. `unknown`: it is stored, and reported as unknown; `unknown-lost`: it
is not, and is reported the same; `crash`: the process dies before it, `crash-done`: after it.
"""
FOR_EVER = float("inf")
_PRAGMAS = (
    "query_only = OFF",
    "locking_mode = EXCLUSIVE",
    "journal_mode = MEMORY",
    "synchronous = OFF",
)
_log = structlog.get_logger()


class Fates:
    """What becomes of each COMMIT: `decide` is the world's, `crash` kills this process."""

    def __init__(self, decide: Callable[[], CommitFate], crash: Callable[[], None]) -> None:
        self.decide = decide
        self.crash = crash

    def meet(self, really: Callable[[], None], abandon: Callable[[], None]) -> None:
        """Commit, or not."""
        fate = self.decide()
        if fate == "refused":
            raise CommitFailed("The simulated disk refused the COMMIT.")
        if fate in {"crash", "unknown-lost"}:
            abandon()
        else:
            really()
        if fate.startswith("crash"):
            self.crash()
            raise ProcessKilled("crashed in a COMMIT")
        if fate.startswith("unknown"):
            raise CommitUnknown("The simulated database was lost during the COMMIT.")


class _PatientGroup(Group[W, R]):
    """A group that is not cut by real time."""

    def __init__(self, first: Entry[W, R], waiting: Any) -> None:  # noqa: ANN401 - as what it stands for takes it
        super().__init__(first, waiting)
        self._until = FOR_EVER


class _Answering:
    """The loop as the writer thread sees it: what it calls there happens a little later, in order.
    The next group may have been committed by then.
    """

    def __init__(self, loop: VirtualLoop, delay: Callable[[], float]) -> None:
        self._loop = loop
        self._delay = delay
        self._last = 0.0
        self.create_future = loop.create_future

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: object) -> None:
        """Call back in the loop."""
        self._last = max(self._last, self._loop.time() + self._delay())
        self._loop.call_at(self._last, callback, *args)


class OneByOne(GroupCommit[W, R]):
    """`GroupCommit` in the virtual loop: a group is committed in one instant, a while after its
    first entry came, and answered a little later; what comes meanwhile shares the next one.
    """

    def __init__(
        self, commit: Callable[[Group[W, R]], None], loop: VirtualLoop, delay: Callable[[], float]
    ) -> None:
        # Not the base's: it would start a thread.
        self._commit = commit
        self._finish = _nothing
        self._waiting = queue.SimpleQueue()
        self._closed = False
        self._failed: DatabaseFailed | None = None
        self._groups = self._entries = self._largest = 0
        self._seconds = 0.0
        self._virtual = loop
        self._delay = delay
        self._due = False
        self._answering = _Answering(loop, delay)

    async def submit(self, work: W) -> R:
        """Queue `work`; return its result after the commit that holds it."""
        check_alive()
        entry: Entry[W, R] = Entry(work, cast("asyncio.AbstractEventLoop", self._answering))
        self._waiting.put(entry)
        self._look_later()
        return await entry.future

    async def close(self) -> None:
        """Nothing is to end: a simulated server is only ever killed."""

    async def wait_failed(self) -> DatabaseFailed:
        """Wait for ever: a failed disk is a crash here."""
        never: asyncio.Future[DatabaseFailed] = self._virtual.create_future()
        return await never

    def _look_later(self) -> None:
        if not self._due and self._waiting.qsize():
            self._due = True
            self._virtual.call_later(self._delay(), self._work)

    def _work(self) -> None:
        self._due = False
        first = self._waiting.get_nowait()
        if first is not None:
            self._run_group(_PatientGroup(first, self._waiting))
        self._look_later()


@cache
def lasting_shell(path: Path) -> SqliteShell:
    """Return this process's shell for a path: every world uses the same one, after another."""
    return SqliteShell(str(path))


class SimulatedShell(SqliteShell):
    """SQLite in a file, with commits that can fail. One per world: it outlives the servers."""

    _really_commit = SqliteShell.commit

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        # The engines hold no connection, only compiled statements: those serve all worlds.
        lasting = lasting_shell(path)
        self._writers, self._readers = lasting._writers, lasting._readers  # noqa: SLF001 - two halves of one thing
        self._only: Any = None
        self.fates = Fates(lambda: "done", _nothing)

    def connect(self, *, reader: bool = False) -> Any:  # noqa: ANN401 - as what it stands for takes it
        """Return the world's only connection: nothing reads while something writes here, so one
        that never asks the kernel for locks or for a disk does, at a third of the time.
        """
        del reader
        if self._only is None:
            self._only = self._readers.connect()
            for pragma in _PRAGMAS:
                self._only.connection.dbapi_connection.execute(f"PRAGMA {pragma}").fetchall()
        return self._only

    def dispose(self) -> None:
        """Close the connection; what is compiled stays."""
        if self._only is not None:
            self._only.close()
            self._only = None

    def commit(self, connection: Any) -> None:  # noqa: ANN401 - as what it stands for takes it
        """COMMIT, or what the seed makes of it."""
        check_alive()
        self.fates.meet(
            lambda: self._really_commit(connection),
            lambda: cast("None", self.abandon(connection, ProcessKilled())),
        )

    def diagnose(self, error: BaseException) -> FleetwireError | None:
        """As SQLite's shell; a simulated failure says itself what it is."""
        return error if isinstance(error, FleetwireError) else super().diagnose(error)

    def copy(self) -> bytes:
        """Return a copy of what is committed."""
        return cast("bytes", self.connect().connection.dbapi_connection.serialize())

    def become(self, copy: bytes) -> None:
        """Hold what the copy holds. No server may use it meanwhile."""
        self.connect().connection.dbapi_connection.deserialize(copy)

    def write(self, case: Callable[[Tx], object], now: int) -> None:
        """Commit a use case while no server runs; `now` in microseconds since 1970."""
        connection = self.connect()
        self.begin(connection)
        case(Tx(connection, now))
        self._really_commit(connection)

    def changes(self, connection: Any) -> int:  # noqa: ANN401 - as what it stands for takes it
        """Return how many rows this connection has changed in its life."""
        return cast("int", connection.connection.dbapi_connection.total_changes)


class WatchedNudges(MemoryNudges):
    """Nudges that must not leave while the transaction that they tell of is open."""

    def __init__(self, *, drop: bool) -> None:
        super().__init__(drop=drop)
        self.may_leave: Callable[[str], None] = _nobody

    def send(self, topic: str) -> None:
        """Nudge every listener."""
        self.may_leave(f"nudge {topic}")
        super().send(topic)


class SimulatedDatabase(Database):
    """`Database`, see the module. `committed` is called after each group that changed rows."""

    def __init__(
        self,
        shell: SimulatedShell,
        *,
        loop: VirtualLoop,
        delay: Callable[[], float],
        fates: Fates,
        nudges: WatchedNudges,
        clock: Callable[[], int],
        committed: Callable[[], None],
    ) -> None:
        self._shell: SimulatedShell = shell
        shell.fates = fates
        self._nudges = nudges
        self._clock = clock
        self._connection = self._shell.connect()
        self._reactions = ()
        self._spare = queue.SimpleQueue()
        # It makes no thread before it is used, and the virtual loop never uses it.
        self._readers = ThreadPoolExecutor(1)
        self._committed = committed
        self._changed = shell.changes(self._connection)
        self._leaves_too_soon: Callable[[str], None] = _nobody
        self._writer = OneByOne(self._commit_and_look, loop, delay)
        nudges.may_leave = self._may_leave

    def watch(self, too_soon: Callable[[str], None]) -> None:
        """Be told of what leaves before it is committed."""
        self._leaves_too_soon = too_soon

    def _commit_and_look(self, group: Group[Any, Any]) -> None:
        check_alive()
        try:
            self._commit_group(group)
        finally:
            connection = self._connection
            if connection is not None:
                changed = self._shell.changes(connection)
                if changed != self._changed:
                    self._changed = changed
                    self._committed()

    def _may_leave(self, what: str) -> None:
        connection = self._connection
        if connection is not None and self._shell.in_transaction(connection):
            self._leaves_too_soon(what)

    def ruin(self) -> None:
        """The process was killed: what is not committed is gone."""
        if self._connection is not None:
            self._shell.abandon(self._connection, ProcessKilled())
            self._connection = None


def _nothing() -> None:
    return


def _nobody(what: str) -> None:
    del what
