"""What people see of runs, tasks and nodes: the shapes of the REST API (docs/seams.md, 4) as
plain values. Times are microseconds since 1970 here; the API writes them as RFC 3339.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final, cast

import msgspec

from fleetwire.core import limits
from fleetwire.core.attempts import Outcome, State, Wish
from fleetwire.core.clocks import skew_warning
from fleetwire.core.dispatch import AdminState, LinkState
from fleetwire.core.happenings import Exited
from fleetwire.core.retry import Retry
from fleetwire.core.runs import RunState
from fleetwire.core.specs import Spec
from fleetwire.server.domain import breaker
from fleetwire.server.domain.breaker import Breaker
from fleetwire.server.domain.errors import NotFound
from fleetwire.server.store import Connection, attempts, nodes, runs
from fleetwire.server.store.attempts import read_exit
from fleetwire.server.store.nodes import NodeRow
from fleetwire.server.store.runs import RunRow, TaskRow

_UNSETTLED: Final = frozenset({"open", "again", "gone"})
_counts = msgspec.json.Decoder(dict[str, int])
_facts = msgspec.json.Decoder(dict[str, Any])


class LogView(msgspec.Struct, frozen=True):
    """An attempt's log: `state` is open, sealed, damaged or missing; `complete` means sealed."""

    length: int | None
    sha256: str | None
    complete: bool
    state: str


_NEW_LOG: Final = LogView(None, None, complete=False, state="open")


class TaskView(msgspec.Struct, frozen=True):
    """A task as its latest attempt; or, among the `earlier` of a task, as one that this one
    followed (P3). `earlier` is by number, and empty for a task of one attempt.
    """

    id: str
    index: int
    node: str | None
    node_id: str | None
    attempt: str
    number: int
    state: State
    wish: Wish
    outcome: Outcome | None
    exit_code: int | None
    signal: int | None
    reason: str | None
    started_at: int | None
    ended_at: int | None
    duration: float | None
    log: LogView
    late_exit: Exited | None
    earlier: tuple[TaskView, ...] = ()


class RunView(msgspec.Struct, frozen=True):
    """A run. `tasks` is None in lists and events. `created_by` is the user's name, `project` the
    project's.
    """

    id: str
    name: str | None
    state: RunState
    outcome: Outcome | None
    wish: Wish
    created_at: int
    ended_at: int | None
    created_by: str
    selector: str | None
    nodes: tuple[str, ...] | None
    any: int | None
    spec: Spec
    counts: dict[str, int]
    sealed: bool
    project: str
    retry: Retry | None = None
    lost_after: float = limits.LOST_AFTER_S
    tasks: tuple[TaskView, ...] | None = None


class NodeView(msgspec.Struct, frozen=True):
    """A node. `running` counts its assigned and running attempts; `clock_skew` is seconds.
    `reconnects` is above 0 only while its link flaps; `warnings` are for people.
    """

    id: str
    name: str
    link: LinkState
    link_since: int | None
    reconnects: int
    admin: AdminState
    labels: dict[str, str]
    capacity: int
    running: int
    last_seen_at: int | None
    agent_version: str | None
    address: str | None
    clock_skew: float | None
    created_at: int
    inventory: dict[str, Any] | None
    warnings: tuple[str, ...]
    project: str


class SystemView(msgspec.Struct, frozen=True):
    """The whole system: how many nodes there are by link state, and the open breaker."""

    nodes: dict[LinkState, int]
    breaker: Breaker | None


class Page(msgspec.Struct, frozen=True):
    """One page of a list, newest first, and the cursor of the next one."""

    items: list[Any]
    next_cursor: str | None


class AttemptView(msgspec.Struct, frozen=True):
    """An attempt with what is needed to read its log: `segment` is where the bytes are. The task
    has `log`, with the length the node promised until it is settled.
    """

    attempt: str
    run_id: str
    node_id: str | None
    node: str | None
    index: int
    number: int
    segment: str
    log_state: str
    log_length: int | None
    sha256: str | None
    task: TaskView


def get_run(connection: Connection, run_id: str) -> RunView:
    """Return a run with its tasks. Raises NotFound."""
    return _run(run_row(connection, run_id), list_tasks(connection, run_id))


def new_task(
    task: str, index: int, node_id: str | None, node: str | None, attempt: str
) -> TaskView:
    """Return a task as it is when it is submitted: its first attempt is pending."""
    return TaskView(
        id=task,
        index=index,
        node=node,
        node_id=node_id,
        attempt=attempt,
        number=1,
        state="pending",
        wish="run",
        outcome=None,
        exit_code=None,
        signal=None,
        reason=None,
        started_at=None,
        ended_at=None,
        duration=None,
        log=_NEW_LOG,
        late_exit=None,
    )


def get_run_summary(connection: Connection, run_id: str) -> RunView:
    """Return a run without its tasks. Raises NotFound."""
    return _run(run_row(connection, run_id), None)


def list_runs(
    connection: Connection,
    *,
    limit: int,
    cursor: str | None = None,
    state: str | None = None,
    outcome: str | None = None,
    within: Collection[str] | None = None,
) -> Page:
    """Return runs without their tasks, newest first, of the projects `within` or of all. A cursor
    is the id of the last one seen.
    """
    rows = runs.page(
        connection, before=cursor, limit=limit + 1, state=state, outcome=outcome, within=within
    )
    shown = [_run(row, None) for row in rows[:limit]]
    return Page(shown, shown[-1].id if len(rows) > limit else None)


def list_tasks(connection: Connection, run_id: str) -> tuple[TaskView, ...]:
    """Return a run's tasks in order, each with its earlier attempts."""
    rows = runs.tasks_of(connection, run_id)
    earlier: dict[str, list[TaskView]] = {}
    if any(row.number > 1 for row in rows):
        for row in runs.earlier_of(connection, run_id):
            earlier.setdefault(row.id, []).append(_task(row))
    return tuple(_task(row, tuple(earlier.get(row.id, ()))) for row in rows)


def get_attempt(connection: Connection, attempt_id: str) -> AttemptView:
    """Return an attempt. Raises NotFound."""
    row = runs.task_of_attempt(connection, attempt_id)
    if row is None:
        raise NotFound(
            f"There is no attempt {attempt_id}.", hint="fleetwire runs show RUN lists them."
        )
    task = _task(row)
    return AttemptView(
        attempt=row.attempt,
        run_id=row.run_id,
        node_id=row.node_id,
        node=row.node,
        index=row.position,
        number=row.number,
        segment=row.segment,
        log_state=task.log.state,
        log_length=task.log.length,
        sha256=task.log.sha256,
        task=task,
    )


def list_nodes(
    connection: Connection,
    *,
    limit: int,
    cursor: str | None = None,
    within: Collection[str] | None = None,
) -> Page:
    """Return nodes by name, of the projects `within` or of all. A cursor is the name of the last
    one seen and its id.
    """
    busy = attempts.busy(connection)
    name, _, id_ = (cursor or "").partition(" ")
    # No id comes after this, where a cursor of an older server names none.
    after = (name, id_ or "~") if name else None
    rows = nodes.page(connection, after=after, limit=limit + 1, within=within)
    shown = [_node(row, busy) for row in rows[:limit]]
    last = f"{shown[-1].name} {shown[-1].id}" if len(rows) > limit else None
    return Page(shown, last)


def get_node(connection: Connection, node: str) -> NodeView:
    """Return a node by its id. Raises NotFound."""
    row = nodes.by_id(connection, node)
    if row is None:
        raise NotFound(
            f"There is no node {node[:80]!r}.", hint="fleetwire nodes lists them.", field="node"
        )
    return _node(row, attempts.busy(connection))


def get_system(connection: Connection, within: Collection[str] | None = None) -> SystemView:
    """Return the state of the whole; the nodes are those of the projects `within`, or all."""
    counted: dict[LinkState, int] = {"online": 0, "unstable": 0, "offline": 0}
    return SystemView(counted | nodes.by_link(connection, within), breaker.standing(connection))


def run_row(connection: Connection, run_id: str) -> RunRow:
    """Return the row of a run. Raises NotFound."""
    row = runs.by_id(connection, run_id)
    if row is None:
        raise NotFound(f"There is no run {run_id}.", hint="fleetwire runs lists them.")
    return row


def _run(row: RunRow, tasks: tuple[TaskView, ...] | None) -> RunView:
    request = runs.read_request(row.request)
    return RunView(
        id=row.id,
        name=row.name,
        state=row.state,
        outcome=row.outcome,
        wish=row.wish,
        created_at=row.created_at,
        ended_at=row.ended_at,
        created_by=row.created_by,
        selector=request.selector,
        nodes=request.nodes,
        any=request.any,
        spec=request.spec,
        counts=_counts.decode(row.counts),
        sealed=row.state == "ended" and row.unsettled == 0,
        project=row.project,
        retry=request.retry,
        lost_after=request.lost_after,
        tasks=tasks,
    )


def _task(row: TaskRow, earlier: tuple[TaskView, ...] = ()) -> TaskView:
    exited = read_exit(row.exit)
    state = "open" if row.log_state in _UNSETTLED else row.log_state
    return TaskView(
        id=row.id,
        index=row.position,
        node=row.node,
        node_id=row.node_id,
        attempt=row.attempt,
        number=row.number,
        state=cast("State", row.state),
        wish=cast("Wish", row.wish),
        outcome=cast("Outcome | None", row.outcome),
        exit_code=None if exited is None else exited.exit_code,
        signal=None if exited is None else exited.signal,
        reason=row.reason,
        started_at=row.started_at,
        ended_at=row.ended_at,
        duration=None if exited is None else exited.duration,
        log=LogView(row.log_length, row.log_sha256, state == "sealed", state),
        late_exit=read_exit(row.late_exit),
        earlier=earlier,
    )


def _node(row: NodeRow, busy: dict[str, int]) -> NodeView:
    skew_s = None if row.clock_skew is None else row.clock_skew / 1_000_000
    return NodeView(
        id=row.id,
        name=row.name,
        link=row.link,
        link_since=row.link_since,
        reconnects=row.reconnects,
        admin=row.admin,
        labels=nodes.read_labels(row.labels),
        capacity=row.capacity,
        running=busy.get(row.id, 0),
        last_seen_at=row.last_seen_at,
        agent_version=row.agent_version,
        address=row.address,
        clock_skew=skew_s,
        created_at=row.created_at,
        inventory=None if row.inventory is None else _facts.decode(row.inventory),
        warnings=_warnings(row, skew_s),
        project=row.project,
    )


def _warnings(row: NodeRow, skew_s: float | None) -> tuple[str, ...]:
    """Return what is not as it should be with a node that is there."""
    found = []
    if row.admin == "quarantined":
        found.append(
            "quarantined, because a copy of its state directory was used: stop the copy, then "
            f"fleetwire nodes release {row.name}, or fleetwire nodes revoke {row.name}"
        )
    if row.admin == "waiting":
        found.append(
            f"waiting for approval: fleetwire nodes approve {row.name}, or fleetwire nodes deny "
            f"{row.name}"
        )
    if row.reconnects:
        minutes = limits.FLAPPING_WITHIN_S / 60
        found.append(f"its link came back {row.reconnects} times within {minutes:.0f} min")
    skew = skew_warning(skew_s)
    if skew is not None:
        found.append(skew)
    return tuple(found)
