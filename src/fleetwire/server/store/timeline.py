"""Lines of a run's timeline: those of the run, of its nodes, and of the whole system, each in the
order of the record.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, bindparam, func, null, select

from fleetwire.server.store.tables import attempts, decisions, former_nodes, nodes, tasks


class Line(NamedTuple):
    """One recorded line; `position` and `number` are of the task and its attempt."""

    id: int
    at: int
    position: int | None
    number: int | None
    node_id: str | None
    node: str | None
    text: str


class Span(NamedTuple):
    """The first and the last recorded line of a run."""

    first: int
    last: int


_NAME = func.coalesce(nodes.c.name, former_nodes.c.name)
_WITH_NAMES = decisions.outerjoin(nodes, nodes.c.id == decisions.c.node_id).outerjoin(
    former_nodes, former_nodes.c.id == decisions.c.node_id
)
_OF_RUN = (
    select(
        decisions.c.id,
        decisions.c.at,
        tasks.c.position,
        attempts.c.number,
        decisions.c.node_id,
        _NAME,
        decisions.c.text,
    )
    .select_from(
        _WITH_NAMES.outerjoin(attempts, attempts.c.id == decisions.c.attempt_id).outerjoin(
            tasks, tasks.c.id == attempts.c.task_id
        )
    )
    .where(decisions.c.run_id == bindparam("run"))
    .where(decisions.c.id > bindparam("after"))
    .order_by(decisions.c.id)
    .limit(bindparam("limit"))
)
_OTHERS = (
    select(
        decisions.c.id,
        decisions.c.at,
        null(),
        null(),
        decisions.c.node_id,
        _NAME,
        decisions.c.text,
    )
    .select_from(_WITH_NAMES)
    .where(decisions.c.run_id.is_(None))
    .where(decisions.c.id > bindparam("after"))
    .where(decisions.c.id <= bindparam("last"))
    .order_by(decisions.c.id)
    .limit(bindparam("limit"))
)
_USED = (
    select(attempts.c.node_id)
    .where(attempts.c.run_id == bindparam("run"))
    .where(attempts.c.node_id.is_not(None))
)
_OF_ITS_NODES = _OTHERS.where(decisions.c.node_id.in_(_USED))
_OF_SYSTEM = _OTHERS.where(decisions.c.node_id.is_(None))
_FIRST = (
    select(decisions.c.id)
    .where(decisions.c.run_id == bindparam("run"))
    .order_by(decisions.c.id)
    .limit(1)
)
_LAST = (
    select(decisions.c.id)
    .where(decisions.c.run_id == bindparam("run"))
    .order_by(decisions.c.id.desc())
    .limit(1)
)


def span(connection: Connection, run_id: str) -> Span | None:
    """Return where a run's lines begin and end, None while there is none."""
    wanted = {"run": run_id}
    first = connection.execute(_FIRST, wanted).scalar()
    last = connection.execute(_LAST, wanted).scalar()
    return None if first is None or last is None else Span(first, last)


def of_run(connection: Connection, run_id: str, *, after: int, limit: int) -> list[Line]:
    """Return a run's own lines with ids above `after`, oldest first."""
    rows = connection.execute(_OF_RUN, {"run": run_id, "after": after, "limit": limit})
    return [Line(*row) for row in rows]


def around(connection: Connection, run_id: str, *, after: int, last: int, limit: int) -> list[Line]:
    """Return lines of the run's nodes and of the system, above `after` up to `last`: at most
    `limit` of each kind, oldest first.
    """
    wanted = {"after": after, "last": last, "limit": limit}
    found = [Line(*row) for row in connection.execute(_OF_ITS_NODES, {"run": run_id, **wanted})]
    found += [Line(*row) for row in connection.execute(_OF_SYSTEM, wanted)]
    return sorted(found)
