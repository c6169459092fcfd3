"""Nudges within one process: a table of topics, and one event for each listener."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from typing import Self

from fleetwire.server.nudges.base import Listener


class MemoryNudges:
    """`Nudges` for one server process.

    With ``drop=True`` every nudge is lost, which the sweeps must survive (architecture 5.14).
    """

    def __init__(self, *, drop: bool = False) -> None:
        self._drop = drop
        self._lock = threading.Lock()
        self._listeners: dict[str, set[MemoryListener]] = {}

    def send(self, topic: str) -> None:
        """Nudge every listener of `topic`; callable from any thread."""
        if self._drop:
            return
        with self._lock:
            listeners = self._listeners.get(topic)
            if not listeners:
                return
            woken = [listener for listener in listeners if listener._collect(topic)]  # noqa: SLF001 - two halves of one thing
        for listener in woken:
            listener._wake()  # noqa: SLF001 - two halves of one thing

    def listen(self, *topics: str) -> MemoryListener:
        """Listen to `topics` while the returned context is entered."""
        return MemoryListener(self, topics)

    def listeners(self) -> int:
        """Return how many topics have listeners (a leak shows here)."""
        return len(self._listeners)

    def _add(self, listener: MemoryListener, topics: tuple[str, ...]) -> None:
        with self._lock:
            for topic in topics:
                self._listeners.setdefault(topic, set()).add(listener)

    def _remove(self, listener: MemoryListener, topics: tuple[str, ...]) -> None:
        with self._lock:
            for topic in topics:
                if listeners := self._listeners.get(topic):
                    listeners.discard(listener)
                    if not listeners:
                        del self._listeners[topic]


class MemoryListener(Listener):
    """A listener of `MemoryNudges`; one task waits on it at a time."""

    def __init__(self, nudges: MemoryNudges, topics: tuple[str, ...]) -> None:
        self._nudges = nudges
        self._topics = set(topics)
        self._seen: set[str] = set()
        self._event = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._nudges._add(self, tuple(self._topics))  # noqa: SLF001 - two halves of one thing
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._nudges._remove(self, tuple(self._topics))  # noqa: SLF001 - two halves of one thing

    async def wait(self, timeout: float | None = None) -> set[str]:  # noqa: ASYNC109 - seams 2: a time-out is an answer here
        """Return the topics nudged since the last call; empty after `timeout` seconds."""
        # A timer of its own: `asyncio.timeout` ends a wait by cancelling its task, which is most of
        # what a server at rest would do.
        is_over = asyncio.Event()
        timer = None
        if timeout is not None and not self._seen:
            timer = asyncio.get_running_loop().call_later(timeout, self._end_wait, is_over)
        try:
            while not self._seen and not is_over.is_set():
                # The event may be left over from nudges that an earlier call returned.
                await self._event.wait()
                self._event.clear()
        finally:
            if timer is not None:
                timer.cancel()
        with self._nudges._lock:  # noqa: SLF001 - two halves of one thing
            seen, self._seen = self._seen, set()
        return seen

    def add(self, *topics: str) -> None:
        """Listen to more topics from now on."""
        self._topics.update(topics)
        self._nudges._add(self, topics)  # noqa: SLF001 - two halves of one thing

    def remove(self, *topics: str) -> None:
        """Listen to these no more."""
        self._topics.difference_update(topics)
        self._nudges._remove(self, topics)  # noqa: SLF001 - two halves of one thing

    def _end_wait(self, is_over: asyncio.Event) -> None:
        is_over.set()
        self._event.set()

    def _collect(self, topic: str) -> bool:
        """Note `topic` (the lock is held); tell whether the waiter must be woken."""
        first = not self._seen
        self._seen.add(topic)
        return first

    def _wake(self) -> None:
        if self._loop is None:
            msg = "a listener gets nudges only after it was entered"
            raise AssertionError(msg)
        try:
            self._loop.call_soon_threadsafe(self._event.set)
        except RuntimeError:
            # The listener's loop has ended, so nobody listens; a nudge may be lost.
            if not self._loop.is_closed():
                raise
