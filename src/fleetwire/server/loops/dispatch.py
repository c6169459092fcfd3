"""Dispatch: gives pending attempts to nodes. It exists because a run is only stored when it is
submitted; whoever is free, allowed and least loaded gets it here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

from fleetwire.core.dispatch import Assign, Expire, Wait, Waiting, plan
from fleetwire.core.envelopes import order_bytes
from fleetwire.core.leases import next_epoch
from fleetwire.server.domain import cluster, dispatch
from fleetwire.server.domain.cluster import EpochBlock
from fleetwire.server.domain.dispatch import RunFacts, Signed
from fleetwire.server.signing import Signer
from fleetwire.server.store.engine import Database

EPOCHS_AT_ONCE: Final = 10_000
KNOWN_RUNS: Final = 4096
SIGN_INLINE: Final = 8
"""More signatures than these are made off the event loop (about 30 us each)."""


class DispatchLoop:
    """See the module. One at a time in a cluster."""

    name = "dispatch"
    topics = ("dispatch",)
    every_s = 1.0

    def __init__(
        self, database: Database, signer: Signer, *, cluster_id: str, clock: Callable[[], int]
    ) -> None:
        self._database = database
        self._signer = signer
        self._cluster = cluster_id
        self._clock = clock
        self._block = EpochBlock(0, 0, 0)
        self._facts: dict[str, RunFacts] = {}
        self._page: str | None = None
        self._paged_at = 0

    async def round(self) -> str:
        """Look, plan, sign, carry out; again at once while lists were cut and work was found."""
        assigned = waiting = expired = 0
        while True:
            view, moved, more = await self._once()
            assigned += moved[0]
            waiting = moved[1]
            expired += moved[2]
            if not more or not (moved[0] or moved[1] or moved[2]):
                return (
                    f"assigned {assigned}, gave {waiting} a new reason, expired {expired}; {view}"
                )

    async def _once(self) -> tuple[str, tuple[int, int, int], bool]:
        now = self._clock()
        # One page of all, at most once a second: reasons change though nothing could start.
        page = self._page or "" if now - self._paged_at >= 1_000_000 else None
        view = await self._database.read(partial(dispatch.view, now=now, page_after=page))
        if page is not None:
            self._page = view.page_end
            self._paged_at = now
        decisions = plan(view.waiting, view.nodes, now)
        assigns = [one for one in decisions if isinstance(one, Assign)]
        waits = [one for one in decisions if isinstance(one, Wait)]
        expires = [one for one in decisions if isinstance(one, Expire)]
        if decisions:
            signed = await self._sign(assigns, {one.attempt: one for one in view.waiting}, now)
            done = await self._database.write(
                lambda tx: dispatch.carry_out(tx, self._block.generation, signed, waits, expires)
            )
            if not done:  # the generation was raised: these epochs are void (5.4)
                self._block = EpochBlock(0, 0, 0)
                return "the generation was raised", (1, 0, 0), True
        looked = f"{len(view.waiting)} looked at, {len(view.nodes)} nodes"
        return looked, (len(assigns), len(waits), len(expires)), view.more

    async def _sign(
        self, assigns: list[Assign], waiting: dict[str, Waiting], now: int
    ) -> list[Signed]:
        if self._block.count < max(len(assigns), 1):
            self._block = await self._database.write(
                lambda tx: cluster.reserve_epochs(tx, EPOCHS_AT_ONCE)
            )
        await self._know({waiting[one.attempt].run for one in assigns})
        block = self._block
        self._block = EpochBlock(
            block.generation, block.first + len(assigns), block.count - len(assigns)
        )

        def sign() -> list[Signed]:
            return [
                self._signed(waiting[one.attempt], one.node, block, number, now)
                for number, one in enumerate(assigns)
            ]

        return sign() if len(assigns) <= SIGN_INLINE else await asyncio.to_thread(sign)

    def _signed(self, one: Waiting, node: str, block: EpochBlock, number: int, now: int) -> Signed:
        epoch = next_epoch(block.generation, block.first + number)
        envelope = dispatch.envelope(
            one, node, epoch, self._facts[one.run], cluster_id=self._cluster, now=now
        )
        return Signed(one.attempt, node, epoch, envelope, self._signer.sign(order_bytes(envelope)))

    async def _know(self, run_ids: set[str]) -> None:
        """Have the facts of these runs at hand; they never change."""
        missing = [id_ for id_ in run_ids if id_ not in self._facts]
        if not missing:
            return
        found = await self._database.read(lambda connection: dispatch.facts(connection, missing))
        self._facts.update(found)
        for id_ in list(self._facts)[: max(0, len(self._facts) - KNOWN_RUNS)]:
            if id_ not in run_ids:
                del self._facts[id_]
