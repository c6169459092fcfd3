"""Sealed attempts: kept a while, then deleted, never one that lives (architecture 5.9).

Deletion runs in a thread, a batch at a time: a task's working directory may hold a whole build.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

from fleetwire.agent import folders
from fleetwire.agent.folders import Places
from fleetwire.agent.status import Status

_BATCH: Final = 200
_GATHER_S: Final = 0.1
_log = logging.getLogger(__name__)


class _Kept(NamedTuple):
    until: float
    size: int


class Cleaner:
    """One per agent. Keeps sealed attempts for `keep_s` seconds or `keep_bytes`, whichever ends
    first. `clock`: seconds, monotonic. `wall`: microseconds since 1970.
    """

    def __init__(
        self,
        places: Places,
        *,
        keep_s: float,
        keep_bytes: int,
        clock: Callable[[], float],
        wall: Callable[[], int],
        status: Status,
    ) -> None:
        self._places = places
        self._keep_s = keep_s
        self._keep_bytes = keep_bytes
        self._clock = clock
        self._wall = wall
        self._status = status
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._bytes = 0
        self._doomed: list[str] = []
        self._going: list[str] = []  # what a thread deletes now
        self._unmarked: list[str] = []
        self._due = asyncio.Event()
        self.used: Callable[[int], None] = lambda _: None

    def keep(self, attempt: str, *, log_bytes: int = 0) -> None:
        """The attempt is sealed from now on."""
        size = folders.FOLDER_BYTES + log_bytes
        self._kept[attempt] = _Kept(self._clock() + self._keep_s, size)
        self._bytes += size
        if self._bytes > self._keep_bytes or len(self._kept) == 1:
            self._due.set()

    def seal(self, attempt: str, *, log_bytes: int) -> None:
        """The server has just called it sealed: keep it, and note that in its folder. Not at
        once: should the note be lost, the server says it again.
        """
        self._unmarked.append(attempt)
        self.keep(attempt, log_bytes=log_bytes)
        self._due.set()

    def has(self, attempt: str) -> bool:
        """Whether it is sealed and still here."""
        return attempt in self._kept

    def deletes(self, attempt: str) -> bool:
        """Whether its folder is about to be deleted: nothing may be put there until it is."""
        return attempt in self._doomed or attempt in self._going

    def give_back(self, attempt: str) -> None:
        """It is not to be deleted after all."""
        kept = self._kept.pop(attempt, None)
        if kept is not None:
            self._bytes -= kept.size

    def forget(self, attempt: str) -> None:
        """Delete it now."""
        self.give_back(attempt)
        self._doomed.append(attempt)
        self._due.set()

    async def run(self) -> None:
        """Delete what is due, for ever. Cancelling leaves at most a half-deleted folder, which
        the next agent finds.
        """
        while True:
            if self._unmarked:
                await asyncio.sleep(_GATHER_S)
                unmarked, self._unmarked = self._unmarked, []
                await asyncio.to_thread(self._mark, unmarked)
            self._expire()
            while self._doomed:
                self._going, self._doomed = self._doomed[:_BATCH], self._doomed[_BATCH:]
                # That an epoch was used must be known for longer than its folder is there.
                self.used(await asyncio.to_thread(self._newest, self._going))
                await asyncio.to_thread(self._delete, self._going)
                self._going = []
            self._say()
            self._due.clear()
            if self._doomed or self._unmarked:
                continue
            wait = self._wait_s()
            try:
                async with asyncio.timeout(wait):
                    await self._due.wait()
            except TimeoutError:
                continue

    def _expire(self) -> None:
        now = self._clock()
        while self._kept:
            attempt, kept = next(iter(self._kept.items()))
            if kept.until > now and self._bytes <= self._keep_bytes:
                return
            self.give_back(attempt)
            self._doomed.append(attempt)

    def _wait_s(self) -> float | None:
        if not self._kept:
            return None
        # Not for each one by itself: those of the next seconds go together.
        return max(1.0, next(iter(self._kept.values())).until - self._clock() + 1.0)

    def _mark(self, attempts: list[str]) -> None:
        for attempt in attempts:
            if not self.has(attempt):
                continue  # wanted again meanwhile
            try:
                folders.mark_sealed(self._places.spool(attempt), self._wall())
            except OSError as error:
                _log.error("%s cannot be marked as sealed: %s", attempt, error)

    def _newest(self, batch: list[str]) -> int:
        """Return the newest epoch that began in any of these folders."""
        return max((folders.begun(self._places.spool(attempt)) for attempt in batch), default=0)

    def _delete(self, batch: list[str]) -> None:
        for attempt in batch:
            try:
                if not folders.delete(self._places, attempt):
                    _log.error("%s was to be deleted, but it lives: kept", attempt)
            except OSError as error:
                _log.error("%s cannot be deleted: %s", attempt, error)

    def _say(self) -> None:
        self._status.say("cleaner", f"{len(self._kept)} sealed attempts kept")
