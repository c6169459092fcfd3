"""Audit: signs checkpoints of the chains that have grown, and deletes what was kept for long
enough, where a setting says so. It exists because a chain alone says nothing against somebody who
makes all of it anew.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from fleetwire.core.retention import DAY_US
from fleetwire.server.domain import audit
from fleetwire.server.domain.audit import Key
from fleetwire.server.store.engine import Database


class AuditLoop:
    """See the module. `keep_s` is how long entries are kept, None for ever; `clock` is microseconds
    since 1970.
    """

    name = "audit"
    topics: tuple[str, ...] = ()
    every_s = 60.0

    def __init__(
        self, database: Database, key: Key, *, keep_s: float | None, clock: Callable[[], int]
    ) -> None:
        self._database = database
        self._key = key
        self._keep_s = keep_s
        self._clock = clock

    async def round(self) -> str:
        """Sign what is due, then delete what is old."""
        due = await self._database.read(partial(audit.due, now=self._clock()))
        if due:
            await self._database.write(partial(audit.sign, heads=due, key=self._key))
        gone = 0 if self._keep_s is None else await self._cut(self._keep_s)
        return f"signed {len(due)} checkpoints, deleted {gone} entries"

    async def _cut(self, keep_s: float) -> int:
        before = self._clock() - round(keep_s * audit.US)
        # Whole days: a cut is an act itself, and its entries must not call for the next ones.
        before -= before % DAY_US
        gone = 0
        for chain in await self._database.read(audit.chains):
            while some := await self._database.write(
                partial(audit.cut, chain=chain, before=before, key=self._key)
            ):
                gone += some
        return gone
