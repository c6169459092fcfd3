"""The disk of a node as its agent sees it: whether it takes starts, and how a small record becomes
durable on a full one (promise P16).
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable
from typing import Final

from fleetwire.agent.reserve import Reserve
from fleetwire.agent.starter import NoRoom

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_log = logging.getLogger(__name__)


class Disk:
    """One per agent. `quota` gives each of so many live attempts its share of the spool quota, and
    raises NoRoom. `full` says why the disk takes no start, as of the last look; `changed` is set
    when that has become so, or is over.
    """

    def __init__(self, reserve: Reserve, quota: Callable[[int], int]) -> None:
        self._reserve = reserve
        self._quota = quota
        self.full: str | None = None
        self.changed = asyncio.Event()

    def share(self, live: int) -> int:
        """Return the share of the quota, in bytes, of each of so many attempts, and note whether
        there is one. Raises NoRoom and OSError.
        """
        try:
            share = self._quota(live)
        except NoRoom as error:
            self._note(error.detail)
            raise
        self._note(None)
        return share

    def look(self, live: int) -> None:
        """See whether the disk takes starts beside so many live attempts."""
        self._reserve.take()
        try:
            self.share(live)
        except NoRoom:
            return  # noted

    def write(self, record: Callable[[], object]) -> None:
        """Make a small record durable; where the disk is full, with the room held back for it.
        Raises OSError.
        """
        try:
            record()
        except OSError as error:
            if error.errno not in _FULL:
                raise
            with self._reserve.given():
                record()

    def _note(self, full: str | None) -> None:
        if (full is None) != (self.full is None):
            _log.log(logging.INFO if full is None else logging.ERROR, full or "the disk has room")
            self.changed.set()
        self.full = full
