"""The eye of the mass-offline breaker (P11): part of the leases loop, which knows who goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import structlog

from fleetwire.core.breaker import Counted, departed, judge
from fleetwire.core.dispatch import LinkState
from fleetwire.server.domain import breaker
from fleetwire.server.domain.breaker import Breaker
from fleetwire.server.domain.nodes import Silence
from fleetwire.server.store.engine import Database

_log = structlog.get_logger()


class MassOffline:
    """Remembers who went within the window, and opens and closes the breaker.

    Whether it is open is the record's word, so it stays open over a restart; who went lately is
    this process's own, as silence is (P10). `monotonic` is seconds.
    """

    def __init__(self, database: Database, monotonic: Callable[[], float]) -> None:
        self._database = database
        self._monotonic = monotonic
        self._recent: dict[str, float] = {}
        self._was_open = False

    async def look(
        self,
        rows: Sequence[Silence],
        states: Mapping[str, LinkState],
        standing: Breaker | None,
    ) -> None:
        """Judge the fleet: its rows as they were read, and the link states that changed since."""
        if self._was_open and standing is None:
            self._recent = {}  # a person closed it: who went before that is not held against us
        self._was_open = standing is not None
        gone = [node for node, link in states.items() if link == "offline"]
        if standing is None and not gone and not self._recent:
            return
        nodes = [Counted(row.id, states.get(row.id, row.link), row.admin) for row in rows]
        back = {node.id for node in nodes if node.link != "offline"}
        self._recent = departed(self._recent, gone, back, self._monotonic())
        verdict, lost, of = judge(standing, self._recent, nodes)
        if verdict == "trip":
            await self._database.write(partial(breaker.open_, gone=lost, of=of))
            self._was_open = True
            _log.error("mass-offline breaker opened", gone=lost, of=of)
        elif verdict == "recover":
            await self._database.write(partial(breaker.close, because="the nodes are back"))
            self._was_open = False
            self._recent = {}
            _log.warning("mass-offline breaker closed", because="the nodes are back")
