"""Group commit: one thread takes all that is queued, commits it together, and repeats.

Why: with ``synchronous=FULL`` an fsync costs as much as dozens of statements. Whoever arrives
while a commit runs shares the next one, so there is no linger: alone, nobody waits for company.

This module knows queues, threads and futures, and nothing of databases: what "commit" means is
a function given to `GroupCommit`. It runs on the writer thread only.
"""

from __future__ import annotations

import asyncio
import copy
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from fleetwire.server.durable.errors import DatabaseClosed, DatabaseFailed

W = TypeVar("W")  # what is submitted
R = TypeVar("R")  # what comes back after the commit

MOST_ENTRIES = 256
"""Entries of one group at most: the last of a crowd waits for a bounded number before it."""

MOST_SECONDS = 0.05
"""A group that has run so long is committed, though more is queued: latency stays fair."""


class Entry(Generic[W, R]):
    """One submitted work and, once its group is committed, its result or its own error."""

    __slots__ = ("error", "future", "loop", "result", "work")

    def __init__(self, work: W, loop: asyncio.AbstractEventLoop) -> None:
        self.work = work
        self.loop = loop
        self.future: asyncio.Future[R] = loop.create_future()
        self.result: R | None = None
        self.error: BaseException | None = None


class Group(Generic[W, R]):
    """The entries of one commit. Iterating takes them off the queue while the bounds allow.

    Every entry that was yielded is a member: it is answered when the group is.
    """

    def __init__(self, first: Entry[W, R], waiting: queue.SimpleQueue[Entry[W, R] | None]) -> None:
        self.members: list[Entry[W, R]] = []
        self.closing = False
        self._first = first
        self._waiting = waiting
        self._until = time.monotonic() + MOST_SECONDS

    def __iter__(self) -> Iterator[Entry[W, R]]:
        members = self.members
        entry: Entry[W, R] | None = self._first
        while entry is not None:
            # A caller that was cancelled while it queued is not run at all.
            if not entry.future.cancelled():
                members.append(entry)
                yield entry
            if len(members) >= MOST_ENTRIES or time.monotonic() >= self._until:
                return
            try:
                entry = self._waiting.get_nowait()
            except queue.Empty:
                return
        self.closing = True

    def fail(self, error: BaseException) -> None:
        """Give `error` to every member, whatever each had reached: none is acknowledged."""
        for entry in self.members:
            entry.error = error


@dataclass(frozen=True, slots=True)
class GroupStatistics:
    """Counters since the start, for `statistics()` and metrics."""

    groups: int
    """Groups committed or failed."""
    entries: int
    """Entries answered, errors among them."""
    largest: int
    """Entries of the largest group."""
    queued: int
    """Entries that wait now."""
    seconds: float
    """Time spent in groups, from the first statement to the end of the commit."""


class GroupCommit(Generic[W, R]):
    """The writer thread and its queue.

    ``commit(group)`` must iterate over the group, do each entry's work, store `result` or
    `error` in it, and return only when all of it is durable. If it raises, every member fails
    with that error. After a `DatabaseFailed` nothing is accepted any more.
    """

    def __init__(
        self,
        name: str,
        commit: Callable[[Group[W, R]], None],
        finish: Callable[[], None],
    ) -> None:
        self._commit = commit
        self._finish = finish
        self._waiting: queue.SimpleQueue[Entry[W, R] | None] = queue.SimpleQueue()
        self._closed = False
        self._failed: DatabaseFailed | None = None
        self._failure_watchers: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        self._failure_lock = threading.Lock()
        self._groups = self._entries = self._largest = 0
        self._seconds = 0.0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def submit(self, work: W) -> R:
        """Queue `work`; return its result after the commit that holds it.

        Entries run in the order in which they were submitted. Cancelling is safe and undoes
        nothing: work that has begun is committed all the same, only its answer is lost.
        """
        if self._failed is not None:
            raise again(self._failed)
        if self._closed:
            msg = "The database is closed, because the server is shutting down."
            raise DatabaseClosed(msg, hint="Try again when it is back.")
        entry: Entry[W, R] = Entry(work, asyncio.get_running_loop())
        self._waiting.put(entry)
        return await entry.future

    async def close(self) -> None:
        """Commit what is queued, then end the thread. Idempotent."""
        if not self._closed:
            self._closed = True
            self._waiting.put(None)
        await asyncio.to_thread(self._thread.join)

    async def wait_failed(self) -> DatabaseFailed:
        """Wait until the disk has failed; the process must end then (promise P15)."""
        seen = asyncio.Event()
        with self._failure_lock:
            self._failure_watchers.append((asyncio.get_running_loop(), seen))
            if self._failed is not None:
                seen.set()
        await seen.wait()
        return cast("DatabaseFailed", self._failed)

    def statistics(self) -> GroupStatistics:
        """Return the counters; each is right, together they may be one group apart."""
        return GroupStatistics(
            self._groups, self._entries, self._largest, self._waiting.qsize(), self._seconds
        )

    # -- the writer thread -------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while (first := self._waiting.get()) is not None:
                if self._run_group(Group(first, self._waiting)):
                    break
        finally:
            self._finish()

    def _run_group(self, group: Group[W, R]) -> bool:
        began = time.monotonic()
        try:
            if self._failed is not None:
                for _ in group:  # take what was queued before the failure was known
                    pass
                raise self._failed
            self._commit(group)
        except BaseException as error:  # noqa: BLE001 - every error arrives at the waiters
            if not group.members:
                next(iter(group), None)
            group.fail(error)
            if isinstance(error, DatabaseFailed) and self._failed is None:
                self._announce_failure(error)
        self._groups += 1
        self._entries += len(group.members)
        self._largest = max(self._largest, len(group.members))
        self._seconds += time.monotonic() - began
        _answer(group.members)
        return group.closing

    def _announce_failure(self, error: DatabaseFailed) -> None:
        with self._failure_lock:
            self._failed = error
            for loop, seen in self._failure_watchers:
                call_soon(loop, seen.set)


def again(error: BaseException) -> BaseException:
    """Return a copy of `error` to raise, so that waiters do not share one traceback."""
    fresh = copy.copy(error)
    fresh.__cause__ = error
    return fresh


def call_soon(
    loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: object
) -> None:
    """Run `callback` in `loop` from another thread; if that loop has ended, nobody waits."""
    try:
        loop.call_soon_threadsafe(callback, *args)
    except RuntimeError:
        if not loop.is_closed():
            raise


def _answer(members: list[Entry[W, R]]) -> None:
    """Wake each event loop once for all its entries, not once per entry."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Entry[W, R]]] = {}
    for entry in members:
        by_loop.setdefault(entry.loop, []).append(entry)
    for loop, entries in by_loop.items():
        call_soon(loop, _resolve, entries)


def _resolve(entries: list[Entry[W, R]]) -> None:
    shared: set[int] = set()
    for entry in entries:
        if entry.future.done():  # cancelled meanwhile
            continue
        if entry.error is None:
            entry.future.set_result(cast("R", entry.result))
        elif id(entry.error) in shared:
            entry.future.set_exception(again(entry.error))
        else:
            shared.add(id(entry.error))
            entry.future.set_exception(entry.error)
