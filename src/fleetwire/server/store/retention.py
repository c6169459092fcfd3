"""Rows that retention looks for, and their deletion."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, bindparam, delete, select

from fleetwire.server.store.attempts import UNSETTLED
from fleetwire.server.store.tables import attempts, decisions, runs, stop_orders, tasks


class EndedRun(NamedTuple):
    """A run that has ended. Times are microseconds since 1970; `counts` is JSON."""

    id: str
    created_at: int
    ended_at: int | None
    unsettled: int


_ENDED = (
    select(runs.c.id, runs.c.created_at, runs.c.ended_at, runs.c.unsettled)
    .where(runs.c.state == "ended")
    .where(runs.c.id > bindparam("after"))
    .order_by(runs.c.id)
    .limit(bindparam("limit"))
)
_SOME_LINES = (
    select(decisions.c.id).where(decisions.c.run_id == bindparam("run")).limit(bindparam("limit"))
)
_SOME_EVENTS = (
    select(decisions.c.id)
    .where(decisions.c.run_id.is_(None))
    .where(decisions.c.at < bindparam("before"))
    .limit(bindparam("limit"))
)
_UNSETTLED_OF_SEGMENT = (
    select(attempts.c.id)
    .where(UNSETTLED)
    .where(attempts.c.segment == bindparam("segment"))
    .limit(1)
)
_YOUNG_OF_SEGMENT = (
    select(attempts.c.id)
    .where(attempts.c.id.between(bindparam("first"), bindparam("last")))
    .where(attempts.c.segment == bindparam("segment"))
    .where(attempts.c.ended_at.is_(None) | (attempts.c.ended_at >= bindparam("cutoff")))
    .limit(1)
)


def ended_runs(connection: Connection, *, after: str, limit: int) -> list[EndedRun]:
    """Return one page of ended runs, oldest first."""
    return [EndedRun(*row) for row in connection.execute(_ENDED, {"after": after, "limit": limit})]


def is_done_with(
    connection: Connection, segment: str, *, first: str, last: str, cutoff: int
) -> bool:
    """Say whether every attempt of a segment is settled and ended before the cutoff. `first` and
    `last` are ids between which its attempts lie (core.retention.ids_of).
    """
    if connection.execute(_UNSETTLED_OF_SEGMENT, {"segment": segment}).first() is not None:
        return False
    wanted = {"segment": segment, "first": first, "last": last, "cutoff": cutoff}
    return connection.execute(_YOUNG_OF_SEGMENT, wanted).first() is None


def delete_lines(connection: Connection, run_id: str, limit: int) -> int:
    """Delete so many lines of a run's story; return how many there were."""
    some = _SOME_LINES.scalar_subquery()
    done = connection.execute(
        delete(decisions).where(decisions.c.id.in_(some)), {"run": run_id, "limit": limit}
    )
    return done.rowcount


def delete_events(connection: Connection, before: int, limit: int) -> int:
    """Delete so many lines about nodes and the whole system that are older."""
    some = _SOME_EVENTS.scalar_subquery()
    done = connection.execute(
        delete(decisions).where(decisions.c.id.in_(some)), {"before": before, "limit": limit}
    )
    return done.rowcount


def delete_run(connection: Connection, run_id: str) -> int:
    """Delete a run with its tasks and attempts; return how many attempts there were."""
    of_run = select(attempts.c.id).where(attempts.c.run_id == run_id)
    connection.execute(delete(stop_orders).where(stop_orders.c.attempt_id.in_(of_run)))
    done = connection.execute(delete(attempts).where(attempts.c.run_id == run_id))
    connection.execute(delete(tasks).where(tasks.c.run_id == run_id))
    connection.execute(delete(runs).where(runs.c.id == run_id))
    return done.rowcount
