"""Leases: keeps link states in the rows, and ends what can wait no longer. It exists because
silence, passed deadlines and deleted nodes nudge nobody (law 8).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from fleetwire.core import limits
from fleetwire.core.dispatch import LinkState
from fleetwire.core.leases import link_state
from fleetwire.server.domain import attempts, nodes
from fleetwire.server.domain.nodes import Silence
from fleetwire.server.loops.mass_offline import MassOffline
from fleetwire.server.store.engine import Database

SEEN_EVERY_US: Final = 30_000_000
"""`last_seen_at` of a node that is heard all the time is written this often."""
AT_ONCE: Final = 500
PROVE_EVERY_ROUNDS: Final = 30

_log = structlog.get_logger()

Hearing = Callable[[str], nodes.Reading]
"""Tells how long a node has been silent in this process (gateway.links)."""


class LeasesLoop:
    """See the module."""

    name = "leases"
    topics: tuple[str, ...] = ()
    every_s = 2.0

    def __init__(
        self,
        database: Database,
        hearing: Hearing,
        *,
        monotonic: Callable[[], float],
        heartbeat_s: float = limits.HEARTBEAT_S,
    ) -> None:
        self._database = database
        self._hearing = hearing
        self._mass_offline = MassOffline(database, monotonic)
        self._heartbeat_s = heartbeat_s
        self._rounds = 0

    async def round(self) -> str:
        """Write link states that changed; sweep deadlines until nothing is left."""
        changed = await self._links()
        ended = 0
        while True:
            swept = await self._database.write(partial(attempts.sweep, limit=AT_ONCE))
            ended += swept
            if swept < AT_ONCE:
                break
        await self._prove()
        return f"{changed} link states changed, {ended} attempts ended or given back"

    async def _prove(self) -> None:
        """Show once a minute that whatever is not final has an owner and a deadline (law 8)."""
        self._rounds += 1
        if self._rounds % PROVE_EVERY_ROUNDS == 1:
            unowned = await self._database.read(attempts.unowned)
            if unowned:
                _log.error("attempts without owner or deadline", attempts=unowned)

    async def _links(self) -> int:
        rows, standing = await self._database.read(nodes.fleet)
        states: dict[str, LinkState] = {}
        heard_at: dict[str, int] = {}
        why: dict[str, str] = {}
        for row in rows:
            reading = self._hearing(row.id)
            state = self._state(row, reading)
            if state != row.link:
                states[row.id] = state
                if state == "offline":
                    why[row.id] = f"is offline: silent for {reading.silent_s:.0f} s"
            seen = reading.seen_at
            if seen is not None and (
                row.last_seen_at is None
                or seen - row.last_seen_at >= SEEN_EVERY_US
                or (state != row.link and seen > row.last_seen_at)
            ):
                heard_at[row.id] = seen
        if states or heard_at:
            await self._database.write(
                partial(nodes.write_links, states=states, heard_at=heard_at, why=why)
            )
        # Before anything is given back or lost for want of these nodes.
        await self._mass_offline.look(rows, states, standing)
        return len(states)

    def _state(self, row: Silence, reading: nodes.Reading) -> LinkState:
        if row.link == "offline" and not reading.connected:
            return "offline"  # only a hello makes it anything else
        return link_state(
            connected=reading.connected,
            silent_s=reading.silent_s,
            heartbeat_s=self._heartbeat_s,
        )
