"""Dispatch: gives pending attempts to nodes. It exists because a run is only stored when it is
submitted; whoever is free, allowed and least loaded gets it here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Final

from fleetwire.server.domain import dispatch
from fleetwire.server.domain.dispatch import Signing
from fleetwire.server.signing import Signer
from fleetwire.server.store.engine import Database, Tx

PAGE_EVERY_US: Final = 1_000_000
_TOPIC: Final = "dispatch"


class DispatchLoop:
    """See the module. `clock` is microseconds since 1970."""

    name = "dispatch"
    topics = (_TOPIC,)
    every_s = 1.0

    def __init__(
        self, database: Database, signer: Signer, *, cluster_id: str, clock: Callable[[], int]
    ) -> None:
        self._database = database
        self._signing = Signing(cluster_id, signer.sign)
        self._clock = clock
        self._page = ""
        self._paged_at = 0

    def react(self, tx: Tx, topics: Collection[str]) -> Collection[str]:
        """Give what can start to its node in the commit that made it possible (a `Reaction`)."""
        if _TOPIC not in topics:
            return ()
        done = dispatch.round_(tx, self._signing, page_after=None)
        return () if done.more else (_TOPIC,)

    async def round(self) -> str:
        """Look, plan, carry out; again at once while lists were cut and work was found."""
        assigned = told = expired = looked = 0
        more = True
        while more:
            # A page of all that wait, once a second: reasons change though nothing could start.
            now = self._clock()
            paging = now - self._paged_at >= PAGE_EVERY_US
            page_after = self._page if paging else None
            done = await self._database.write(
                partial(dispatch.round_, signing=self._signing, page_after=page_after)
            )
            if paging:
                self._page, self._paged_at = done.page_end, now
            assigned += done.assigned
            told += done.told
            expired += done.expired
            looked += done.looked
            more = done.more
        return (
            f"looked at {looked}, assigned {assigned}, gave {told} a new reason, expired {expired}"
        )
