"""The mass-offline breaker (promise P11).

When most of a fleet goes within a minute, the fault is rarely in so many machines: it is the
network, the power, or this server's own connection. What the system does by itself (a retry, a
re-placement) would then only move the damage. So it stops acting by itself until enough nodes
are back, or a person says so; what people ask for goes on as ever.

            more than half, and at least 10, within 60 s
    closed ─────────────────────────────────────────────▶ open
       ▲                                                   │
       └── three quarters are online, or a person says so ─┘

A node *goes* when it is shown offline (P10), so a restarted server, which gives everyone a fresh
90 s, trips nothing while its nodes come back. Times here are seconds of one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal, TypeAlias

import msgspec

from fleetwire.core import limits
from fleetwire.core.dispatch import AdminState, LinkState


class Breaker(msgspec.Struct, frozen=True):
    """An open breaker: `gone` of the `of` nodes that were there went together. `since` is wall
    time, microseconds since 1970, for people.
    """

    since: int
    gone: int
    of: int


class Counted(msgspec.Struct, frozen=True):
    """A node as the breaker sees it, now."""

    id: str
    link: LinkState
    admin: AdminState


Verdict: TypeAlias = Literal["trip", "recover"] | None


def counts(node: Counted) -> bool:
    """Say whether a node belongs to the fleet that is watched: what an administrator has locked
    out is not missed.
    """
    return node.admin not in {"disabled", "quarantined"}


def departed(
    recent: Mapping[str, float], gone: Collection[str], back: Collection[str], now: float
) -> dict[str, float]:
    """Return who went within the window, and when: those of `recent` that are neither back nor
    past it, and those that are shown offline since this moment.
    """
    window = limits.MASS_OFFLINE_WITHIN_S
    kept = {node: at for node, at in recent.items() if now - at <= window and node not in back}
    return {**kept, **dict.fromkeys(gone, now)}


def trips(gone: int, of: int) -> bool:
    """Say whether this is a mass offline: more than half, and at least 10."""
    return gone >= limits.MASS_OFFLINE_LEAST and gone * 2 > of


def recovers(standing: Breaker, *, online: int, enrolled: int) -> bool:
    """Say whether enough are back: three quarters of those that were there, so that it does not
    open again with the next one that goes. Nodes that were deleted or locked out meanwhile are
    not waited for.
    """
    return online * 4 >= min(standing.of, enrolled) * 3


def judge(
    standing: Breaker | None, recent: Collection[str], nodes: Collection[Counted]
) -> tuple[Verdict, int, int]:
    """Return what to do, with how many went within the window, of how many that were there.

    `recent` are the nodes of `departed`, `nodes` the whole fleet.
    """
    watched = [node for node in nodes if counts(node)]
    gone = sum(1 for node in watched if node.id in recent and node.link == "offline")
    of = gone + sum(1 for node in watched if node.link != "offline")
    if standing is None:
        return ("trip" if trips(gone, of) else None), gone, of
    online = sum(1 for node in watched if node.link == "online")
    back = recovers(standing, online=online, enrolled=len(watched))
    return ("recover" if back else None), gone, of


def explain(standing: Breaker) -> str:
    """Say what an open breaker means, for whoever has to wait for it."""
    return (
        f"{standing.gone} of {standing.of} nodes went offline together, so nothing is retried or "
        "placed anew until they are back or an administrator closes the breaker"
    )
