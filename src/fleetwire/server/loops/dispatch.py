"""Dispatch: gives pending attempts to nodes. It exists because a run is only stored when it is
submitted; whoever is free, allowed and least loaded gets it here.

Topics: `dispatch` means that there are new attempts, `dispatch:{node}` that a node may take more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from fleetwire.server.domain import dispatch
from fleetwire.server.domain.dispatch import Rounded, Signing
from fleetwire.server.domain.secrets import Sealing
from fleetwire.server.loops.rest import Rest
from fleetwire.server.signing import Signer
from fleetwire.server.store.engine import Database, Tx

PAGE_EVERY_US: Final = 1_000_000
_TOPIC: Final = "dispatch"
_OF_NODE: Final = "dispatch:"


class DispatchLoop:
    """See the module. `clock` is microseconds since 1970."""

    name = "dispatch"
    topics = (_TOPIC,)
    every_s = 1.0

    def __init__(
        self,
        database: Database,
        signer: Signer,
        *,
        cluster_id: str,
        clock: Callable[[], int],
        sealing: Sealing,
    ) -> None:
        self._database = database
        self._signing = Signing(cluster_id, signer.sign, sealing)
        self._clock = clock
        self._page = ""
        self._paged_at = 0
        self._rest = Rest(database)
        self._due: set[str] = set()  # nodes whose queue was cut; touched on the writer thread only

    def react(self, tx: Tx, topics: Collection[str]) -> Collection[str]:
        """Give what can start to its node in the commit that made it possible (a `Reaction`)."""
        ours = [topic for topic in topics if topic == _TOPIC or topic.startswith(_OF_NODE)]
        if not ours:
            return ()
        among = {topic.removeprefix(_OF_NODE) for topic in ours if topic != _TOPIC}
        done = dispatch.round_(tx, self._signing, among=among, page_after=None)
        if not done.more:
            return ours
        self._due |= among
        tx.nudge(_TOPIC)  # the loop goes on
        return [topic for topic in ours if topic != _TOPIC]

    async def round(self) -> str:
        """Look, plan, carry out; again at once while lists were cut and work was found. Once a
        second all nodes are looked at, and a page of all that wait: a nudge may have been lost,
        and reasons change though nothing could start.
        """
        counted = [0, 0, 0, 0]
        look = self._rest.is_over()
        done = dispatch.NOTHING_WAITS
        if look and self._clock() - self._paged_at < PAGE_EVERY_US:
            while look:
                done = await self._database.write(self._new)
                look = self._count(counted, done)
            look = self._clock() - self._paged_at >= PAGE_EVERY_US
        while look:
            done = await self._database.write(self._sweep)
            self._page, self._paged_at = done.page_end, self._clock()
            look = self._count(counted, done)
        self._rest.after(nothing_waits=done is dispatch.NOTHING_WAITS)
        looked, assigned, told, expired = counted
        return (
            f"looked at {looked}, assigned {assigned}, gave {told} a new reason, expired {expired}"
        )

    def _new(self, tx: Tx) -> Rounded:
        """A round of what is new, and of the nodes whose queue was cut."""
        among, self._due = self._due, set()
        done = dispatch.round_(tx, self._signing, among=among, page_after=None)
        if done.more:
            self._due |= among
        return done

    def _sweep(self, tx: Tx) -> Rounded:
        """A round of all nodes, and of a page of all that wait."""
        self._due.clear()
        return dispatch.round_(tx, self._signing, among=None, page_after=self._page)

    @staticmethod
    def _count(counted: list[int], done: Rounded) -> bool:
        for place, number in enumerate((done.looked, done.assigned, done.told, done.expired)):
            counted[place] += number
        return done.more
