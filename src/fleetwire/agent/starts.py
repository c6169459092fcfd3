"""Starts that were decided, on their way: prepared together in a thread, then asked of the spawner.

What happens meanwhile (a stop, a drain, a full disk, a spawner that says no) is decided anew by the
roster, whose entries these are.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from fleetwire.agent.attempts import Decline, Folder
from fleetwire.agent.disk import Disk
from fleetwire.agent.entry import Entry
from fleetwire.agent.level import takes_starts
from fleetwire.agent.spawner import SpawnerLine
from fleetwire.agent.starter import NoRoom, Starter

if TYPE_CHECKING:
    from fleetwire.agent.roster import Roster


class Starts:
    """One per roster."""

    def __init__(self, roster: Roster, starter: Starter, spawner: SpawnerLine, disk: Disk) -> None:
        self._roster = roster
        self._starter = starter
        self._spawner = spawner
        self._disk = disk
        self._unprepared: list[Entry] = []
        self._preparing = False
        self._group: asyncio.TaskGroup | None = None
        spawner.answered = self._answered

    def begin(self, group: asyncio.TaskGroup) -> None:
        """Start in tasks of this group from now on."""
        self._group = group

    def launch(self, starts: list[Entry]) -> None:
        """Start these, which have their places."""
        if not starts or self._group is None:
            return
        self._unprepared += starts
        if not self._preparing:
            self._preparing = True
            self._group.create_task(self._prepare())

    async def _prepare(self) -> None:
        """Prepare what is to start, all that has come at a time: what comes meanwhile goes
        together, in one hop to a thread and one write to the spawner.
        """
        try:
            while self._unprepared:
                starts, self._unprepared = self._unprepared, []
                await self._prepare_and_ask(starts)
        finally:
            self._preparing = False

    async def _prepare_and_ask(self, starts: list[Entry]) -> None:
        """Write the folders in a thread: creating files waits for the disk's journal, which the
        fsyncs of every shim keep busy, and neither links nor other attempts shall wait with it.
        """
        try:
            quota = self._disk.share(self._roster.busy)
        except (NoRoom, OSError) as error:
            for entry in starts:
                self._not_prepared(entry, Decline(str(error), final=False))
            return
        starts = [entry for entry in starts if self._still_starts(entry)]
        for entry in starts:
            entry.quota = quota
        orders = [entry.wanted for entry in starts if entry.wanted is not None]
        prepared = await asyncio.to_thread(self._starter.prepare_all, orders, quota=quota)
        ready: list[str] = []
        for entry, outcome in zip(starts, prepared, strict=True):
            if outcome == "ready":
                ready.append(entry.attempt)
                self._roster.watch_add(entry.attempt, entry.path)
            else:
                self._not_prepared(entry, outcome)
        self._spawner.start(ready)

    def _still_starts(self, entry: Entry) -> bool:
        """Whether a start is still wanted when its turn has come: a stop may have come first, or a
        drain.
        """
        wanted = entry.wanted
        if wanted is not None and wanted.wish == "run" and wanted.order is not None:
            if takes_starts(self._roster.level.admin):
                return True
            why = Decline(f"the node is {self._roster.level.admin}", final=False)
            self._not_prepared(entry, why)
            return False
        entry.asked = False
        self._roster.put(entry, Folder(attempt=entry.attempt, ordered=entry.folder.ordered))
        self._roster.again(entry)
        return False

    def _not_prepared(self, entry: Entry, why: Literal["begun"] | Decline) -> None:
        entry.asked = False
        if isinstance(why, Decline):
            self._roster.decline(entry, entry.folder.ordered or 0, why.reason, final=why.final)
        else:
            self._roster.look(entry)

    def _answered(self, attempt: str, error: str | None) -> None:
        entry = self._roster.entry(attempt)
        if entry is None:
            return
        entry.asked = False
        if error is None:
            return
        # It may have been forked all the same: the folder knows.
        self._roster.look(entry)
        if entry.folder.busy or entry.folder.ended:
            return
        if error and entry.wanted is not None:
            self._roster.decline(entry, entry.wanted.epoch, error, final=False)
        else:
            self._roster.again(entry)
