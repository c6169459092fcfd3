"""Pending attempts, as dispatch looks for them.

However many wait, a round reads only what could change: the oldest for every node that has
room, those that no node is bound to, those that nobody has looked at yet, and one page of all.
What a node has just declined is left out for a while: it would be declined again at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ClauseElement, Connection, bindparam, select, text

from fleetwire.server.store.attempts import PENDING
from fleetwire.server.store.prepared import Ids, Prepared, PreparedIn
from fleetwire.server.store.tables import attempts, nodes


class Pending(NamedTuple):
    """A pending attempt that is wished to run."""

    id: str
    run_id: str
    epoch: int
    queue_deadline: int
    target: str | None
    reason: str | None
    task_id: str
    number: int


_PENDING = (
    select(
        attempts.c.id,
        attempts.c.run_id,
        attempts.c.epoch,
        attempts.c.queue_deadline,
        attempts.c.target,
        attempts.c.reason,
        attempts.c.task_id,
        attempts.c.number,
    )
    .where(PENDING)
    .where(attempts.c.not_before.is_(None) | (attempts.c.not_before <= bindparam("now")))
    .limit(bindparam("limit"))
)
_inner = attempts.alias("oldest")
_OLDEST_OF_NODE = (
    select(_inner.c.id)
    .where(text("oldest.state = 'pending'"))
    .where(_inner.c.target == nodes.c.id)
    .where(_inner.c.not_before.is_(None) | (_inner.c.not_before <= bindparam("now")))
    .order_by(_inner.c.id)
    .limit(bindparam("each"))
    .correlate(nodes)
)


def _for_nodes(ids: Ids) -> ClauseElement:
    return (
        select(
            attempts.c.id,
            attempts.c.run_id,
            attempts.c.epoch,
            attempts.c.queue_deadline,
            attempts.c.target,
            attempts.c.reason,
            attempts.c.task_id,
            attempts.c.number,
        )
        .select_from(nodes.join(attempts, attempts.c.id.in_(_OLDEST_OF_NODE.scalar_subquery())))
        .where(PENDING)
        .where(nodes.c.id.in_(ids))
        .limit(bindparam("limit"))
    )


_FOR_NODES = PreparedIn(_for_nodes)
_FOR_ANY = Prepared(_PENDING.where(attempts.c.target.is_(None)).order_by(attempts.c.id))
_FRESH = Prepared(_PENDING.where(attempts.c.reason.is_(None)).order_by(attempts.c.id))
_ALL = Prepared(_PENDING.where(attempts.c.id > bindparam("after")).order_by(attempts.c.id))
_ONE = Prepared(select(attempts.c.id).where(PENDING).limit(1))


def is_any(connection: Connection) -> bool:
    """Say whether anything is pending at all."""
    return _ONE.first(connection, {}) is not None


def for_nodes(
    connection: Connection, now: int, node_ids: Sequence[str], *, each: int, limit: int
) -> list[Pending]:
    """Return the oldest `each` attempts bound to each of these nodes."""
    values = {"each": each, "limit": limit, "now": now}
    return [Pending(*row) for row in _FOR_NODES.rows(connection, node_ids, values)][:limit]


def for_any(connection: Connection, now: int, limit: int) -> list[Pending]:
    """Return the oldest that are bound to no node."""
    return _rows(connection, _FOR_ANY, {"limit": limit, "now": now})


def fresh(connection: Connection, now: int, limit: int) -> list[Pending]:
    """Return the oldest that wait without a reason."""
    return _rows(connection, _FRESH, {"limit": limit, "now": now})


def page(connection: Connection, now: int, *, after: str, limit: int) -> list[Pending]:
    """Return a page of all, by id."""
    return _rows(connection, _ALL, {"after": after, "limit": limit, "now": now})


def _rows(connection: Connection, statement: Prepared, values: dict[str, Any]) -> list[Pending]:
    return [Pending(*row) for row in statement.rows(connection, values)]
