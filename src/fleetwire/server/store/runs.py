"""Rows of runs and of their tasks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, bindparam, func, insert, select, update

from fleetwire.core.attempts import Outcome, Wish
from fleetwire.core.runs import RunState
from fleetwire.core.specs import RunRequest
from fleetwire.server.store.prepared import Prepared, PreparedIn
from fleetwire.server.store.tables import (
    attempts,
    former_nodes,
    nodes,
    projects,
    runs,
    tasks,
    users,
)


class FoldRow(NamedTuple):
    """A run's fold as stored; `counts` is JSON."""

    id: str
    state: RunState
    counts: str
    unsettled: int


class RunRow(msgspec.Struct, frozen=True):
    """A run as lists show it; `request` and `counts` are JSON, `created_by` a user's name,
    `project` a project's.
    """

    id: str
    name: str | None
    request: str
    wish: Wish
    state: RunState
    outcome: Outcome | None
    counts: str
    unsettled: int
    created_by: str
    created_at: int
    ended_at: int | None
    project: str


class TaskRow(msgspec.Struct, frozen=True):
    """A task with its latest attempt. `node` and `node_id` are where it runs, else where it is
    bound to run; `exit` and `late_exit` are JSON.
    """

    id: str
    position: int
    node: str | None
    node_id: str | None
    attempt: str
    number: int
    state: str
    wish: str
    outcome: str | None
    reason: str | None
    started_at: int | None
    ended_at: int | None
    exit: str | None
    late_exit: str | None
    log_state: str
    log_length: int | None
    log_sha256: str | None
    run_id: str
    segment: str


_INSERT_RUN = Prepared(
    insert(runs),
    [column.name for column in runs.c if column.name not in {"outcome", "ended_at"}],
)
_INSERT_TASKS = Prepared(insert(tasks), [column.name for column in tasks.c])
_request = msgspec.json.Decoder(RunRequest)

_FOLDS = PreparedIn(
    lambda ids: (
        select(runs.c.id, runs.c.state, runs.c.counts, runs.c.unsettled)
        .where(runs.c.id.in_(ids))
        .with_for_update()
    )
)
_UPDATE = update(runs).where(runs.c.id == bindparam("the_id"))
_FOLD_COLUMNS = ("state", "outcome", "counts", "unsettled")
_REFOLD = Prepared(_UPDATE, _FOLD_COLUMNS)
_END = Prepared(_UPDATE, (*_FOLD_COLUMNS, "ended_at"))
_REQUESTS = PreparedIn(lambda ids: select(runs.c.id, runs.c.request).where(runs.c.id.in_(ids)))
_BY_KEYS = PreparedIn(
    lambda keys: (
        select(runs.c.idempotency_key, runs.c.id, runs.c.idempotency_hash, runs.c.created_at)
        .where(runs.c.created_by == bindparam("user"))
        .where(runs.c.idempotency_key.in_(keys))
    )
)
_WISH = select(runs.c.wish).where(runs.c.id == bindparam("the_id")).with_for_update()
_RUNS = select(
    runs.c.id,
    runs.c.name,
    runs.c.request,
    runs.c.wish,
    runs.c.state,
    runs.c.outcome,
    runs.c.counts,
    runs.c.unsettled,
    func.coalesce(users.c.name, runs.c.created_by),
    runs.c.created_at,
    runs.c.ended_at,
    projects.c.name,
).select_from(
    runs.outerjoin(users, users.c.id == runs.c.created_by).join(
        projects, projects.c.id == runs.c.project_id
    )
)
_AT = func.coalesce(attempts.c.node_id, tasks.c.node_id)
_TASKS = select(
    tasks.c.id,
    tasks.c.position,
    func.coalesce(nodes.c.name, former_nodes.c.name),
    _AT,
    attempts.c.id,
    attempts.c.number,
    attempts.c.state,
    attempts.c.wish,
    attempts.c.outcome,
    attempts.c.reason,
    attempts.c.started_at,
    attempts.c.ended_at,
    attempts.c.exit,
    attempts.c.late_exit,
    attempts.c.log_state,
    attempts.c.log_length,
    attempts.c.log_sha256,
    attempts.c.run_id,
    attempts.c.segment,
)
_BY_ID = Prepared(_RUNS.where(runs.c.id == bindparam("the_id")))
_OF_RUN = Prepared(
    _TASKS.select_from(
        tasks.join(attempts, attempts.c.id == tasks.c.attempt_id)
        .outerjoin(nodes, nodes.c.id == _AT)
        .outerjoin(former_nodes, former_nodes.c.id == _AT)
    )
    .where(tasks.c.run_id == bindparam("run"))
    .order_by(tasks.c.position)
)
_OF_ATTEMPT = _TASKS.select_from(
    attempts.join(tasks, tasks.c.id == attempts.c.task_id)
    .outerjoin(nodes, nodes.c.id == _AT)
    .outerjoin(former_nodes, former_nodes.c.id == _AT)
).where(attempts.c.id == bindparam("attempt"))
_PLACED = PreparedIn(
    lambda ids: (
        select(tasks.c.run_id, attempts.c.node_id)
        .select_from(tasks.join(attempts, attempts.c.id == tasks.c.attempt_id))
        .where(tasks.c.run_id.in_(ids))
        .where(attempts.c.node_id.is_not(None))
    )
)
_TRIED = PreparedIn(
    lambda ids: (
        select(attempts.c.task_id, attempts.c.node_id)
        .where(attempts.c.task_id.in_(ids))
        .where(attempts.c.node_id.is_not(None))
    )
)
_POINT = Prepared(
    update(tasks).where(tasks.c.id == bindparam("the_id")),
    ["attempt_id"],
)
_EARLIER = Prepared(
    _TASKS.select_from(
        tasks.join(attempts, attempts.c.task_id == tasks.c.id)
        .outerjoin(nodes, nodes.c.id == _AT)
        .outerjoin(former_nodes, former_nodes.c.id == _AT)
    )
    .where(tasks.c.run_id == bindparam("run"))
    .where(attempts.c.id != tasks.c.attempt_id)
    .order_by(tasks.c.position, attempts.c.number)
)


def insert_all(
    connection: Connection, rows: Sequence[dict[str, Any]], of_them: Sequence[dict[str, Any]]
) -> None:
    """Store runs and their tasks."""
    _INSERT_RUN.change_all(connection, rows)
    _INSERT_TASKS.change_all(connection, of_them)


def folds(connection: Connection, ids: Iterable[str]) -> list[FoldRow]:
    """Return the folds of runs, locked for this transaction to change."""
    return [FoldRow(*row) for row in _FOLDS.rows(connection, list(ids))]


def refold(connection: Connection, folds_: Sequence[dict[str, Any]]) -> None:
    """Store folds: `the_id`, `state`, `outcome`, `counts`, `unsettled`, and `ended_at`, which is
    written only where it is not None.
    """
    ending = [one for one in folds_ if one["ended_at"] is not None]
    others = [one for one in folds_ if one["ended_at"] is None]
    for statement, some in ((_END, ending), (_REFOLD, others)):
        if some:
            statement.change_all(connection, some)


def change(connection: Connection, run_id: str, **values: object) -> None:
    """Set columns of a run."""
    connection.execute(_UPDATE, {"the_id": run_id, **values})


def by_idempotency_keys(
    connection: Connection, user: str, keys: Sequence[str]
) -> dict[str, tuple[str, str | None, int]]:
    """Return id, hash of the body and time of making of the runs that hold a user's keys."""
    rows = _BY_KEYS.rows(connection, keys, {"user": user})
    return {key: (id_, body, created_at) for key, id_, body, created_at in rows}


def wish(connection: Connection, run_id: str) -> Wish | None:
    """Return a run's wish, locked; None if there is no such run."""
    found: Wish | None = connection.execute(_WISH, {"the_id": run_id}).scalar()
    return found


def requests(connection: Connection, ids: Iterable[str]) -> dict[str, RunRequest]:
    """Return what was asked in each run; a request never changes."""
    return {id_: read_request(request) for id_, request in _REQUESTS.rows(connection, list(ids))}


def read_request(value: str) -> RunRequest:
    """Return a stored request."""
    return _request.decode(value)


def nodes_of(connection: Connection, ids: Iterable[str]) -> dict[str, set[str]]:
    """Return the nodes that the tasks of each run are or were on, by their latest attempts."""
    found: dict[str, set[str]] = {}
    for run_id, node in _PLACED.rows(connection, list(ids)):
        found.setdefault(run_id, set()).add(node)
    return found


def tried(connection: Connection, task_ids: Iterable[str]) -> dict[str, set[str]]:
    """Return the nodes that any attempts of each task are or were on."""
    found: dict[str, set[str]] = {}
    for task, node in _TRIED.rows(connection, list(task_ids)):
        found.setdefault(task, set()).add(node)
    return found


def point(connection: Connection, latest: Mapping[str, str]) -> None:
    """Make these the latest attempts of their tasks: attempt by task."""
    _POINT.change_all(
        connection, [{"the_id": task, "attempt_id": one} for task, one in latest.items()]
    )


def by_id(connection: Connection, run_id: str) -> RunRow | None:
    """Return one run."""
    row = _BY_ID.first(connection, {"the_id": run_id})
    return None if row is None else RunRow(*row)


def page(
    connection: Connection,
    *,
    before: str | None,
    limit: int,
    state: str | None = None,
    outcome: str | None = None,
    within: Collection[str] | None = None,
) -> list[RunRow]:
    """Return runs, newest first, with ids below `before`; those of the projects `within`, or of
    all.
    """
    # Which ones, by one index, whatever is joined to them. Almost all runs have ended: those that
    # have not are found by their state, all others by their project. What is only compared is no
    # plain column, which would tempt SQLite to another index.
    found = select(runs.c.id).order_by(runs.c.id.desc()).limit(limit)
    by_state = state not in {None, "ended"}
    if within is not None:
        project = func.coalesce(runs.c.project_id, "") if by_state else runs.c.project_id
        found = found.where(project.in_(within))
    if state is not None:
        found = found.where(
            (runs.c.state if by_state else func.coalesce(runs.c.state, "")) == state
        )
    if before is not None:
        found = found.where(runs.c.id < before)
    if outcome is not None:
        found = found.where(runs.c.outcome == outcome)
    query = _RUNS.where(runs.c.id.in_(found)).order_by(runs.c.id.desc())
    rows: Iterable[Any] = connection.execute(query)
    return [RunRow(*row) for row in rows]


def tasks_of(connection: Connection, run_id: str) -> list[TaskRow]:
    """Return a run's tasks in order, each with its latest attempt."""
    return [TaskRow(*row) for row in _OF_RUN.rows(connection, {"run": run_id})]


def earlier_of(connection: Connection, run_id: str) -> list[TaskRow]:
    """Return the attempts of a run's tasks that have a successor, by task and number."""
    return [TaskRow(*row) for row in _EARLIER.rows(connection, {"run": run_id})]


def task_of_attempt(connection: Connection, attempt: str) -> TaskRow | None:
    """Return an attempt with its task."""
    row: Any = connection.execute(_OF_ATTEMPT, {"attempt": attempt}).first()
    return None if row is None else TaskRow(*row)


def with_prefix(
    connection: Connection, noun: str, prefix: str, within: Collection[str]
) -> list[tuple[str, str]]:
    """Return at most two (id, project) of a noun (run, attempt, node) that begin so, of those
    that belong to these projects.
    """
    table = {"run": runs, "attempt": attempts, "node": nodes}[noun]
    owner = runs if noun == "attempt" else table
    # A range, because LIKE uses no index on either database by default.
    query = (
        select(table.c.id, owner.c.project_id)
        .where(table.c.id >= prefix)
        .where(table.c.id < prefix + "g")
        .where(owner.c.project_id.in_(within))
        .limit(2)
    )
    if noun == "attempt":
        query = query.select_from(attempts.join(runs, runs.c.id == attempts.c.run_id))
    return [(id_, project) for id_, project in connection.execute(query)]


_PROJECT = Prepared(select(runs.c.project_id).where(runs.c.id == bindparam("the_id")))
_PROJECT_OF_ATTEMPT = Prepared(
    select(runs.c.project_id)
    .select_from(attempts.join(runs, runs.c.id == attempts.c.run_id))
    .where(attempts.c.id == bindparam("the_id"))
)
_PROJECTS = PreparedIn(lambda ids: select(runs.c.id, runs.c.project_id).where(runs.c.id.in_(ids)))


def project_of(connection: Connection, run_id: str) -> str | None:
    """Return the project of a run, None if there is no such run."""
    row = _PROJECT.first(connection, {"the_id": run_id})
    return None if row is None else str(row[0])


def project_of_attempt(connection: Connection, attempt: str) -> str | None:
    """Return the project of an attempt's run, None if there is no such attempt."""
    row = _PROJECT_OF_ATTEMPT.first(connection, {"the_id": attempt})
    return None if row is None else str(row[0])


def submitters(connection: Connection, ids: Collection[str]) -> dict[str, tuple[str, str]]:
    """Return who submitted runs: a user's id and name, by the run's id."""
    query = (
        select(runs.c.id, runs.c.created_by, func.coalesce(users.c.name, ""))
        .select_from(runs.outerjoin(users, users.c.id == runs.c.created_by))
        .where(runs.c.id.in_(ids))
    )
    return {row[0]: (row[1], row[2]) for row in connection.execute(query)}


def projects_of(connection: Connection, ids: Iterable[str]) -> dict[str, str]:
    """Return the projects of runs."""
    return dict(_PROJECTS.rows(connection, list(ids)))
