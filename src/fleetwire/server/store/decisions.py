"""Rows of recorded reasons: the story of each attempt (law 9)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection, bindparam, func, insert, select

from fleetwire.server.store.prepared import Prepared
from fleetwire.server.store.tables import attempts, decisions, former_nodes, nodes, tasks


class Decision(NamedTuple):
    """One line of a story. `at` is microseconds since 1970."""

    at: int
    run_id: str | None
    attempt_id: str | None
    node_id: str | None
    epoch: int | None
    text: str


class Told(NamedTuple):
    """A line of a run's story with its task's place and its node's name; ids grow in the order of
    the record.
    """

    id: int
    at: int
    position: int | None
    node: str | None
    text: str


_NODE_NAME = func.coalesce(nodes.c.name, former_nodes.c.name)
LATEST: Final = 2**63 - 1
_INSERT = Prepared(insert(decisions), Decision._fields)
_STORY = (
    select(decisions.c.id, decisions.c.at, tasks.c.position, _NODE_NAME, decisions.c.text)
    .select_from(
        decisions.outerjoin(attempts, attempts.c.id == decisions.c.attempt_id)
        .outerjoin(tasks, tasks.c.id == attempts.c.task_id)
        .outerjoin(nodes, nodes.c.id == decisions.c.node_id)
        .outerjoin(former_nodes, former_nodes.c.id == decisions.c.node_id)
    )
    .where(decisions.c.run_id == bindparam("run"))
    .order_by(tasks.c.position, decisions.c.id.desc())
    .limit(bindparam("limit"))
)
_OF_NODE = (
    select(decisions.c.id, decisions.c.at, decisions.c.text)
    .where(decisions.c.node_id == bindparam("node"))
    .where(decisions.c.run_id.is_(None))
    .where(decisions.c.id < bindparam("before"))
    .order_by(decisions.c.id.desc())
    .limit(bindparam("limit"))
)
_WAS_GIVEN = (
    select(decisions.c.id)
    .where(decisions.c.attempt_id == bindparam("attempt"))
    .where(decisions.c.node_id == bindparam("node"))
    .where(decisions.c.epoch == bindparam("epoch"))
    .limit(1)
)
_TEXTS = (
    select(decisions.c.text)
    .where(decisions.c.attempt_id == bindparam("attempt"))
    .where(decisions.c.node_id == bindparam("node"))
)


def record(connection: Connection, lines: Sequence[Decision]) -> None:
    """Store lines, in order."""
    if lines:
        _INSERT.change_all(connection, [line._asdict() for line in lines])


def story(connection: Connection, run_id: str, limit: int) -> list[Told]:
    """Return a run's lines, by task, newest first."""
    rows = connection.execute(_STORY, {"run": run_id, "limit": limit})
    return [Told(*row) for row in rows]


class Happened(NamedTuple):
    """What happened to a node, and when; ids grow in the order of the record."""

    id: int
    at: int
    text: str


def of_node(connection: Connection, node: str, *, before: int | None, limit: int) -> list[Happened]:
    """Return what happened to a node, newest first, with ids below `before`."""
    wanted = {"node": node, "before": LATEST if before is None else before, "limit": limit}
    return [Happened(*row) for row in connection.execute(_OF_NODE, wanted)]


def was_given(connection: Connection, attempt: str, node: str, epoch: int) -> bool:
    """Say whether the attempt was once assigned to this node with this epoch."""
    wanted = {"attempt": attempt, "node": node, "epoch": epoch}
    return connection.execute(_WAS_GIVEN, wanted).first() is not None


def texts(connection: Connection, attempt: str, node: str) -> set[str]:
    """Return what is recorded of an attempt on a node, so that evidence is kept once."""
    rows = connection.execute(_TEXTS, {"attempt": attempt, "node": node})
    return {text for (text,) in rows}
