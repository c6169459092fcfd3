"""What the agent says to the shims of living attempts, and what it does for dead ones.

A shim's control socket is asked in a thread; a shim that does not answer has ended, has not
begun, or is busy, and the roster's sweep tries again: nothing here is remembered but what a shim
has confirmed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from fleetwire.agent.entry import Entry
from fleetwire.agent.starter import NoRoom
from fleetwire.core import limits
from fleetwire.shim import control
from fleetwire.shim.spawner import bury
from fleetwire.shim.spool import read_record

_log = logging.getLogger(__name__)


class Shims:
    """One per agent. `quota` gives each of so many live attempts its share of the spool quota;
    `look` reads an attempt's folder again.
    """

    def __init__(self, quota: Callable[[int], int], look: Callable[[Entry], None]) -> None:
        self._quota = quota
        self._look = look
        self._group: asyncio.TaskGroup | None = None

    def begin(self, group: asyncio.TaskGroup) -> None:
        """Talk in tasks of this group from now on."""
        self._group = group

    def stop(self, entry: Entry) -> None:
        """Pass the server's wish on, if there is one that the shim has not confirmed. A shorter
        grace is passed on as well, a longer one is not.
        """
        wanted = entry.wanted
        if wanted is None or wanted.wish != "stop" or not entry.folder.live or entry.telling:
            return
        grace = wanted.grace
        if grace is None:
            order = read_record(entry.path, "order") or {}
            grace = float(order.get("grace_s", limits.GRACE_DEFAULT_S))
        if entry.told_grace is None or grace < entry.told_grace:
            entry.telling = True
            self._spawn().create_task(self._stop(entry, grace))

    def trimmed(self, entry: Entry) -> None:
        """Some of its pieces are gone: it has room again."""
        self._spawn().create_task(self._ask(entry, {"do": "trimmed"}))

    def share_quota(self, live: Iterable[Entry]) -> None:
        """Tell each its share of the spool quota where that has changed by a tenth (5.9)."""
        entries = [entry for entry in live if entry.folder.live and not entry.asked]
        try:
            share = self._quota(len(entries))
        except NoRoom:
            return  # nothing starts either; what runs keeps what it was promised
        for entry in entries:
            if abs(share - entry.quota) > share // 10:
                before, entry.quota = entry.quota, share
                self._spawn().create_task(self._tell_quota(entry, share, before))

    def bury(self, entry: Entry) -> None:
        """Its shim was killed and no spawner saw it: end what is left, say `lost` (5.12)."""
        if not entry.telling:
            entry.telling = True
            self._spawn().create_task(self._bury(entry))

    async def _stop(self, entry: Entry, grace: float) -> None:
        try:
            if await self._ask(entry, {"do": "stop", "grace_s": grace}):
                entry.told_grace = grace
        finally:
            entry.telling = False
        if entry.told_grace is not None:
            self.stop(entry)  # the wish may have become more urgent while it was being told

    async def _tell_quota(self, entry: Entry, share: int, before: int) -> None:
        if not await self._ask(entry, {"do": "quota", "bytes": share}) and entry.quota == share:
            entry.quota = before  # the next sweep tells it

    async def _bury(self, entry: Entry) -> None:
        folder = entry.folder
        epoch = folder.begun if folder.begun is not None else folder.ordered or 0
        try:
            reason = await asyncio.to_thread(bury, entry.path, epoch=epoch)
        except OSError as error:  # a full disk, or no folder any more: the sweep asks again
            _log.error("%s cannot be buried: %s", entry.attempt, error)
            reason = None
        finally:
            entry.telling = False
        if reason is not None:
            _log.warning("buried %s: %s", entry.attempt, reason)
        self._look(entry)

    async def _ask(self, entry: Entry, request: dict[str, object]) -> bool:
        try:
            answer = await asyncio.to_thread(control.ask, entry.path, request)
        except OSError as error:
            _log.debug("the shim of %s does not answer: %s", entry.attempt, error)
            return False
        return bool(answer.get("ok"))

    def _spawn(self) -> asyncio.TaskGroup:
        if self._group is None:
            raise AssertionError("the roster has not begun")
        return self._group
