"""Leases: keeps link states in the rows, and ends what can wait no longer. It exists because
silence, passed deadlines and deleted nodes nudge nobody (law 8).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

from fleetwire.core import limits
from fleetwire.core.clocks import is_news, skew_warning
from fleetwire.core.dispatch import LinkState
from fleetwire.core.flapping import flaps
from fleetwire.core.leases import link_state
from fleetwire.server.domain import attempts, nodes
from fleetwire.server.domain.breaker import Breaker
from fleetwire.server.domain.nodes import Noticed, Reading, Silence
from fleetwire.server.loops.mass_offline import MassOffline
from fleetwire.server.loops.rest import Rest
from fleetwire.server.store.engine import Database

US: Final = 1_000_000
SEEN_EVERY_US: Final = 30_000_000
"""`last_seen_at` of a node that is heard all the time is written this often."""
AT_ONCE: Final = 500

Fleet: TypeAlias = tuple[list[Silence], Breaker | None]
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
        self._rest = Rest(database)
        self._fleet: tuple[int | None, Fleet] = (None, ([], None))

    async def round(self) -> str:
        """Write link states that changed; sweep deadlines until nothing is left."""
        changed = await self._links()
        ended = 0
        while self._rest.is_over():
            swept = await self._database.write(partial(attempts.sweep, limit=AT_ONCE))
            ended += swept.ended
            if swept.ended < AT_ONCE:
                self._rest.after(nothing_waits=swept.nothing_waits)
                break
        return f"{changed} link states changed, {ended} attempts ended or given back"

    async def _links(self) -> int:
        rows, standing = await self._rows()
        noticed = _Notes()
        for row in rows:
            noticed.take(row, self._hearing(row.id), self._heartbeat_s)
        if noticed.news:
            await self._database.write(partial(nodes.write_links, noticed=noticed.news))
        # Before anything is given back or lost for want of these nodes.
        await self._mass_offline.look(rows, noticed.news.states, standing)
        return len(noticed.news.states)

    async def _rows(self) -> Fleet:
        """Return the nodes as the record has them; what was read stays until a commit."""
        version = self._database.version()
        if version is None or version != self._fleet[0]:
            self._fleet = version, await self._database.read(nodes.fleet)
        return self._fleet[1]


class _Notes:
    """What one look at all links finds that the rows do not say yet."""

    def __init__(self) -> None:
        self._states: dict[str, LinkState] = {}
        self._heard_at: dict[str, int] = {}
        self._reconnects: dict[str, int] = {}
        self._skews: dict[str, int] = {}
        self._told: list[tuple[str, str]] = []
        self.news = Noticed(
            states=self._states,
            heard_at=self._heard_at,
            reconnects=self._reconnects,
            skews=self._skews,
            told=self._told,
        )

    def take(self, row: Silence, reading: Reading, heartbeat_s: float) -> None:
        """Compare one node's row with how it is heard."""
        flapping = flaps(row.reconnects > 0, reading.reconnects)
        state = _state(row, reading, heartbeat_s, flapping=flapping)
        if state != row.link:
            self._states[row.id] = state
        seen = reading.seen_at
        if seen is not None and (
            row.last_seen_at is None
            or seen - row.last_seen_at >= SEEN_EVERY_US
            or (state != row.link and seen > row.last_seen_at)
        ):
            self._heard_at[row.id] = seen
        self._take_flapping(row, reading.reconnects if flapping else 0)
        if state != row.link and not (flapping and row.reconnects):
            self._tell(row, reading, state)
        if reading.skew is not None:
            self._take_skew(row, reading.skew)

    def _take_flapping(self, row: Silence, count: int) -> None:
        if count == row.reconnects:
            return
        self._reconnects[row.id] = count
        if not row.reconnects:
            within = limits.FLAPPING_WITHIN_S / 60
            text = f"is unstable: its link came back {count} times within {within:.0f} min"
            self._told.append((row.id, text))
        elif not count:
            self._told.append((row.id, "is steady again"))

    def _tell(self, row: Silence, reading: Reading, state: LinkState) -> None:
        if state == "offline":
            self._told.append((row.id, f"is offline: silent for {reading.silent_s:.0f} s"))
        elif row.link == "online" and not reading.connected:
            self._told.append(
                (row.id, f"its link is lost: last heard {reading.silent_s:.0f} s ago")
            )

    def _take_skew(self, row: Silence, skew: int) -> None:
        told_s = None if row.clock_skew is None else row.clock_skew / US
        if not is_news(told_s, skew / US):
            return
        self._skews[row.id] = skew
        warned, warning = skew_warning(told_s), skew_warning(skew / US)
        if warning is not None and warned is None:
            self._told.append((row.id, warning))
        elif warned is not None and warning is None:
            self._told.append((row.id, "its clock is right again"))


def _state(row: Silence, reading: Reading, heartbeat_s: float, *, flapping: bool) -> LinkState:
    if row.link == "offline" and not reading.connected:
        return "offline"  # only a hello makes it anything else
    return link_state(
        connected=reading.connected,
        silent_s=reading.silent_s,
        heartbeat_s=heartbeat_s,
        flapping=flapping,
    )
