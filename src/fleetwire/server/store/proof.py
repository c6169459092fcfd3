"""What the proof that everything ends looks at (law 8): few rows, found by their indexes."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection, Select, and_, bindparam, exists, or_, select

from fleetwire.core.proof import Standing
from fleetwire.server.store.attempts import LIVE, PENDING, UNSETTLED
from fleetwire.server.store.tables import attempts, nodes, runs, tasks

AT_MOST: Final = 100

_ORPHANED = or_(
    tasks.c.id.is_(None), tasks.c.attempt_id != attempts.c.id, runs.c.state.in_(["ended"])
)


def _standing() -> Select[Any]:
    return (
        select(
            attempts.c.id,
            attempts.c.state,
            attempts.c.queue_deadline,
            attempts.c.node_id,
            nodes.c.id.is_not(None),
            attempts.c.lost_after,
            attempts.c.ended_at,
            and_(tasks.c.id.is_not(None), tasks.c.attempt_id == attempts.c.id),
            runs.c.state.in_(["ended"]),
            attempts.c.log_state.in_(["open", "again", "gone"]),
            attempts.c.log_state.in_(["gone"]),
        )
        .select_from(
            attempts.outerjoin(tasks, tasks.c.id == attempts.c.task_id)
            .outerjoin(runs, runs.c.id == attempts.c.run_id)
            .outerjoin(nodes, nodes.c.id == attempts.c.node_id)
        )
        .limit(AT_MOST)
    )


_SUSPECT = (
    _standing().where(PENDING).where(or_(attempts.c.queue_deadline < bindparam("past"), _ORPHANED)),
    _standing()
    .where(LIVE)
    .where(
        or_(
            attempts.c.node_id.is_(None),
            attempts.c.lost_after.is_(None),
            attempts.c.lost_after < bindparam("past"),
            _ORPHANED,
        )
    ),
    _standing()
    .where(UNSETTLED)
    .where(attempts.c.ended_at < bindparam("past"))
    .where(or_(attempts.c.log_state.in_(["gone"]), nodes.c.id.is_(None))),
)
_OPEN_RUNS = (
    select(runs.c.id)
    .where(runs.c.state.in_(["pending", "running"]))
    .where(
        ~exists(
            select(tasks.c.id)
            .select_from(tasks.join(attempts, attempts.c.id == tasks.c.attempt_id))
            .where(tasks.c.run_id == runs.c.id)
            .where(attempts.c.state.in_(["pending", "assigned", "running"]))
        )
    )
    .limit(AT_MOST)
)


def suspects(connection: Connection, past: int) -> list[Standing]:
    """Return attempts that look as if nobody would end them, `past` (microseconds since 1970)
    being the oldest deadline that need not have been acted on yet.
    """
    return [
        Standing(
            attempt=id_,
            state=state,
            queue_deadline=queue_deadline,
            node=node,
            node_known=bool(node_known),
            lost_after=lost_after,
            ended_at=ended_at,
            is_latest=bool(is_latest),
            run_ended=bool(run_ended),
            log_open=bool(log_open),
            log_given_up=bool(log_given_up),
        )
        for query in _SUSPECT
        for (
            id_, state, queue_deadline, node, node_known, lost_after, ended_at, is_latest,
            run_ended, log_open, log_given_up,
        ) in connection.execute(query, {"past": past})
    ]  # fmt: skip


def runs_without_work(connection: Connection) -> list[str]:
    """Return runs that are shown open although every task of theirs has ended."""
    return [id_ for (id_,) in connection.execute(_OPEN_RUNS)]
