"""The mass-offline breaker (P11): whether the system may act by itself.

Whatever the system would do without being asked (try again what failed or was lost, place anew
what a node did not start) asks `may_act` in its own transaction first. It does not ask for what
people want: submissions, stops and first placements.
"""

from __future__ import annotations

from fleetwire.core.breaker import Breaker, explain
from fleetwire.server.store import Connection, breaker, decisions
from fleetwire.server.store.decisions import Decision
from fleetwire.server.store.engine import Tx

__all__ = ["Breaker", "close", "explain", "may_act", "open_", "standing"]


def standing(connection: Connection) -> Breaker | None:
    """Return the open breaker, None while it is closed."""
    return breaker.get(connection)


def may_act(connection: Connection) -> bool:
    """Say whether the system may act by itself now."""
    return breaker.get(connection) is None


def open_(tx: Tx, *, gone: int, of: int) -> Breaker:
    """Open it: `gone` of `of` nodes went together. One that is open stays as it is."""
    before = breaker.lock(tx.connection)
    if before is not None:
        return before
    opened = Breaker(tx.now, gone, of)
    breaker.put(tx.connection, opened)
    _say(tx, f"the mass-offline breaker opened: {explain(opened)}")
    return opened


def close(tx: Tx, because: str) -> bool:
    """Close it; say whether it was open. What waited for it is looked at again."""
    if breaker.lock(tx.connection) is None:
        return False
    breaker.put(tx.connection, None)
    _say(tx, f"the mass-offline breaker closed: {because}")
    tx.nudge("dispatch")
    return True


def _say(tx: Tx, text: str) -> None:
    """Tell it to everyone: it is part of the story of each run and of no node alone."""
    decisions.record(tx.connection, [Decision(tx.now, None, None, None, None, text)])
    tx.nudge("nodes")
