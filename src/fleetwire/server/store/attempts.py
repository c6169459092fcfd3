"""Rows of attempts: to and from `core.attempts.Attempt`, and what the sweeps look for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgspec
from msgspec.structs import astuple
from sqlalchemy import (
    ClauseElement,
    Connection,
    bindparam,
    func,
    insert,
    literal_column,
    or_,
    select,
    text,
    update,
)

from fleetwire.core.attempts import Attempt
from fleetwire.core.happenings import Exited
from fleetwire.server.store.prepared import Ids, Prepared, PreparedIn
from fleetwire.server.store.tables import attempts, nodes

LogState: TypeAlias = Literal["open", "again", "gone", "sealed", "damaged", "missing"]
SETTLED: Final[frozenset[LogState]] = frozenset({"sealed", "damaged", "missing"})
"""Log states in which nothing more is waited for (tables.attempts draws them all)."""

PENDING = text("attempts.state = 'pending'")
LIVE = text("attempts.state IN ('assigned', 'running')")
UNSETTLED = text("attempts.log_state IN ('open', 'again', 'gone')")
_ASSIGNED = text("attempts.state = 'assigned'")
_UNTOLD = text("(attempts.state = 'assigned' OR attempts.wish = 'stop')")
# Text, because a value that is compared with the condition of a partial index makes SQLite plan
# the whole statement anew each time: 60 us.


class AttemptRow(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt with what the server knows beside its machine (tables.attempts)."""

    attempt: Attempt
    task_id: str
    run_id: str
    target: str | None
    number: int
    queue_deadline: int
    segment: str
    declines: int = 0
    not_before: int | None = None
    incarnation: str | None = None
    stop_grace: float | None = None
    signature: bytes | None = None
    envelope: str | None = None
    assigned_at: int | None = None
    lost_after: int | None = None
    ended_at: int | None = None
    log_state: LogState = "open"
    log_length: int | None = None
    log_sha256: str | None = None
    log_begins: int = 0
    log_hole: int | None = None

    @property
    def id(self) -> str:
        """The attempt's id."""
        return self.attempt.id


_COLUMNS = (
    attempts.c.id,
    attempts.c.state,
    attempts.c.wish,
    attempts.c.epoch,
    attempts.c.node_id,
    attempts.c.offered,
    attempts.c.reason,
    attempts.c.outcome,
    attempts.c.started_at,
    attempts.c.exit,
    attempts.c.late_exit,
    attempts.c.task_id,
    attempts.c.run_id,
    attempts.c.target,
    attempts.c.number,
    attempts.c.queue_deadline,
    attempts.c.segment,
    attempts.c.declines,
    attempts.c.not_before,
    attempts.c.incarnation,
    attempts.c.stop_grace,
    attempts.c.signature,
    attempts.c.envelope,
    attempts.c.assigned_at,
    attempts.c.lost_after,
    attempts.c.ended_at,
    attempts.c.log_state,
    attempts.c.log_length,
    attempts.c.log_sha256,
    attempts.c.log_begins,
    attempts.c.log_hole,
)
_ENCODED = {"exit", "late_exit"}

_encode = msgspec.json.Encoder().encode
_exited = msgspec.json.Decoder(Exited)

_SELECT = select(*_COLUMNS)
_LOCK = _SELECT.with_for_update()
_BY_IDS = PreparedIn(lambda ids: _SELECT.where(attempts.c.id.in_(ids)))
_LOCK_BY_IDS = PreparedIn(lambda ids: _LOCK.where(attempts.c.id.in_(ids)))
_OF_RUN = Prepared(_LOCK.where(attempts.c.run_id == bindparam("run")))
_INSERT = Prepared(insert(attempts), [column.name for column in _COLUMNS])
_UPDATE = (
    update(attempts)
    .where(attempts.c.id == bindparam("the_id"))
    .where(attempts.c.state == bindparam("was_state"))
    .where(attempts.c.epoch == bindparam("was_epoch"))
)
_ATTEMPT_FIELDS = tuple("node_id" if name == "node" else name for name in Attempt.__struct_fields__)
_ROW_FIELDS = AttemptRow.__struct_fields__[1:]


def read_exit(value: str | None) -> Exited | None:
    """Return a stored exit record."""
    return None if value is None else _exited.decode(value)


def insert_all(connection: Connection, rows: Sequence[AttemptRow]) -> None:
    """Store new attempts."""
    _INSERT.change_all(connection, [_values(row) for row in rows])


def save(connection: Connection, changes: Sequence[tuple[AttemptRow, AttemptRow]]) -> None:
    """Store (before, after) pairs of rows that this transaction has read to change them.

    Each update is conditional on the state and the epoch that were read, and sets what differs
    and nothing else: SQLite makes the entry of an index anew for every column that an update
    names, changed or not, and with all of them it took three times as long.
    """
    alike: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for before, after in changes:
        values = _changed(before, after)
        if values:
            columns = tuple(values)
            values["the_id"] = after.id
            values["was_state"] = before.attempt.state
            values["was_epoch"] = before.attempt.epoch
            alike.setdefault(columns, []).append(values)
    for columns, parameters in alike.items():
        stored = _setting(columns).change_all(connection, parameters)
        if stored != len(parameters):
            raise AssertionError(
                f"{len(parameters)} attempts were read to change, {stored} were there"
            )


@cache
def _setting(columns: tuple[str, ...]) -> Prepared:
    """Return the update of these columns. There are few ways in which an attempt changes."""
    return Prepared(_UPDATE, columns)


def _changed(before: AttemptRow, after: AttemptRow) -> dict[str, Any]:
    """Return the columns that differ, as they are now."""
    changed = {
        name: now
        for name, was, now in zip(_ROW_FIELDS, _beside(before), _beside(after), strict=True)
        if was != now
    }
    if after.attempt is not before.attempt:
        for name, was, now in zip(
            _ATTEMPT_FIELDS, astuple(before.attempt), astuple(after.attempt), strict=True
        ):
            if was != now:
                changed[name] = _as_json(now) if name in _ENCODED else now
    return changed


def _as_json(value: Exited | None) -> str | None:
    return None if value is None else _encode(value).decode()


def _beside(row: AttemptRow) -> tuple[Any, ...]:
    return astuple(row)[1:]


def load(connection: Connection, ids: Iterable[str]) -> dict[str, AttemptRow]:
    """Return the attempts that exist, by id, locked for this transaction to change."""
    return {row[0]: _row(row) for row in _LOCK_BY_IDS.rows(connection, list(ids))}


def look(connection: Connection, ids: Iterable[str]) -> dict[str, AttemptRow]:
    """Return the attempts that exist, by id."""
    return {row[0]: _row(row) for row in _BY_IDS.rows(connection, list(ids))}


def of_run(connection: Connection, run_id: str) -> list[AttemptRow]:
    """Return all attempts of a run, locked for this transaction to change."""
    return [_row(row) for row in _OF_RUN.rows(connection, {"run": run_id})]


_LIVE_OF_NODE = Prepared(_LOCK.where(LIVE).where(attempts.c.node_id == bindparam("node")))
_UNSETTLED_OF_NODES = PreparedIn(
    lambda ids: _LOCK.where(UNSETTLED).where(attempts.c.node_id.in_(ids))
)


_ALL_ASSIGNED = Prepared(_LOCK.where(LIVE).where(_ASSIGNED))


def assigned(connection: Connection) -> list[AttemptRow]:
    """Return all assigned attempts, locked."""
    return [_row(row) for row in _ALL_ASSIGNED.rows(connection, {})]


def live_of_node(connection: Connection, node: str) -> list[AttemptRow]:
    """Return a node's assigned and running attempts, locked."""
    return [_row(row) for row in _LIVE_OF_NODE.rows(connection, {"node": node})]


_PENDING_FOR_NODE = Prepared(_LOCK.where(PENDING).where(attempts.c.target == bindparam("node")))


def pending_for_node(connection: Connection, node: str) -> list[AttemptRow]:
    """Return pending attempts that only this node could run, locked."""
    return [_row(row) for row in _PENDING_FOR_NODE.rows(connection, {"node": node})]


def unsettled_of_node(connection: Connection, node: str) -> list[AttemptRow]:
    """Return a node's attempts whose log is not settled, the live ones among them, locked."""
    return unsettled_of_nodes(connection, [node])


def unsettled_of_nodes(connection: Connection, ids: Sequence[str]) -> list[AttemptRow]:
    """Return what `unsettled_of_node` does, of several nodes."""
    return [_row(row) for row in _UNSETTLED_OF_NODES.rows(connection, ids)]


def _to_tell(ids: Ids) -> ClauseElement:
    return _LOCK.where(LIVE).where(attempts.c.node_id.in_(ids)).where(_UNTOLD)


_TO_TELL = PreparedIn(_to_tell)


def to_tell(connection: Connection, node_ids: Sequence[str]) -> list[AttemptRow]:
    """Return what the links of these nodes may have to be told: not known to have started, or
    wished to stop. Locked.
    """
    return [_row(row) for row in _TO_TELL.rows(connection, node_ids)]


_GIVEN_UP = PreparedIn(
    lambda ids: (
        _LOCK.where(UNSETTLED)
        .where(attempts.c.node_id.in_(ids))
        .where(text("attempts.state = 'lost' AND attempts.wish = 'stop'"))
        .where(attempts.c.late_exit.is_(None))
    )
)


def given_up(connection: Connection, node_ids: Sequence[str]) -> list[AttemptRow]:
    """Return what was just given up on these nodes and is to stop where it still runs (P3): a
    link that never broke is told so at once, any other when its node says what it has. Locked.
    """
    return [_row(row) for row in _GIVEN_UP.rows(connection, node_ids)]


_NODES_TO_TELL = select(attempts.c.node_id).distinct().where(LIVE).where(_UNTOLD)


def nodes_to_tell(connection: Connection) -> set[str]:
    """Return the nodes of `to_tell` (the sweep of the links)."""
    return {node for (node,) in connection.execute(_NODES_TO_TELL) if node is not None}


def newest(connection: Connection) -> str | None:
    """Return the newest attempt's id, or None."""
    found: str | None = connection.scalar(select(func.max(attempts.c.id)))
    return found


def grant_time(connection: Connection, until: int) -> None:
    """Move the deadlines of what is not known to have begun to `until`, where they are before."""
    waiting = update(attempts).where(text("attempts.state IN ('pending', 'assigned')"))
    for deadline in (attempts.c.queue_deadline, attempts.c.lost_after):
        connection.execute(waiting.where(deadline < until).values({deadline: until}))


def in_doubt(
    connection: Connection, *, node: str | None, before: str, limit: int
) -> list[AttemptRow]:
    """Return attempts with ids below `before` that are not known to have begun: assigned to a
    node or waiting for it, or waiting for any where `node` is None. Locked.
    """
    waiting = _LOCK.where(PENDING).where(attempts.c.target == node)
    queries = [waiting]
    if node is not None:
        queries.append(_LOCK.where(LIVE).where(attempts.c.node_id == node))
    rows = []
    for query in queries:
        narrowed = (
            query.where(attempts.c.id < before)
            .where(attempts.c.state.in_(["pending", "assigned"]))
            .limit(limit)
        )
        rows += [_row(row) for row in connection.execute(narrowed)]
    return rows


_LIVE_COUNT = select(attempts.c.node_id, func.count()).where(LIVE).group_by(attempts.c.node_id)
_BUSY = Prepared(_LIVE_COUNT)
_BUSY_OF = PreparedIn(lambda ids: _LIVE_COUNT.where(attempts.c.node_id.in_(ids)))


def busy(connection: Connection, ids: Sequence[str] | None = None) -> dict[str, int]:
    """Return how many assigned and running attempts the nodes of `ids`, or all, have; idle nodes
    are left out.
    """
    rows = _BUSY.rows(connection, {}) if ids is None else _BUSY_OF.rows(connection, ids)
    return {node: count for node, count in rows if node is not None}


class Progress(NamedTuple):
    """An ended attempt's log that is not settled: what was promised, and how it was told."""

    id: str
    segment: str
    state: str
    log_state: LogState
    log_length: int | None
    log_begins: int
    exit: Exited | None
    late_exit: Exited | None


# Not the column itself: sorted by its key, SQLite would walk through all attempts there ever were
# (1.4 s of a million), instead of sorting the few of the index of what is not settled.
_ID = attempts.c.id.concat(literal_column("''"))
_ENDED_UNSETTLED = (
    select(
        attempts.c.id,
        attempts.c.segment,
        attempts.c.state,
        attempts.c.log_state,
        attempts.c.log_length,
        attempts.c.log_begins,
        attempts.c.exit,
        attempts.c.late_exit,
    )
    .where(UNSETTLED)
    .where(text("attempts.state IN ('exited', 'lost')"))
    .where(bindparam("after") < _ID)
    .order_by(_ID)
    .limit(bindparam("limit"))
)


def ended_unsettled(connection: Connection, *, after: str, limit: int) -> list[Progress]:
    """Return one page, by id, of ended attempts whose log is not settled."""
    rows: Any = connection.execute(_ENDED_UNSETTLED, {"after": after, "limit": limit})
    return [
        Progress(
            id=row.id,
            segment=row.segment,
            state=row.state,
            log_state=row.log_state,
            log_length=row.log_length,
            log_begins=row.log_begins,
            exit=read_exit(row.exit),
            late_exit=read_exit(row.late_exit),
        )
        for row in rows
    ]


_SETTLED_OF = PreparedIn(
    lambda ids: (
        select(attempts.c.id, attempts.c.log_state)
        .where(attempts.c.id.in_(ids))
        .where(text("attempts.log_state NOT IN ('open', 'gone')"))
    )
)


def settled_of(connection: Connection, ids: Sequence[str]) -> dict[str, LogState]:
    """Return the log states of those that are settled, or wanted again from 0."""
    return dict(_SETTLED_OF.rows(connection, ids))


_PAST_QUEUE = (
    select(attempts.c.id)
    .where(PENDING)
    .where(attempts.c.queue_deadline <= bindparam("now"))
    .limit(bindparam("limit"))
)
_ASSIGNED_PAST_QUEUE = (
    select(attempts.c.id)
    .where(LIVE)
    .where(_ASSIGNED)
    .where(attempts.c.offered.is_(False))
    .where(attempts.c.queue_deadline <= bindparam("now"))
    .limit(bindparam("limit"))
)
_PAST_LOST = (
    select(attempts.c.id)
    .where(LIVE)
    .where(attempts.c.lost_after <= bindparam("now"))
    .limit(bindparam("limit"))
)
_NEVER_OFFERED = (
    select(attempts.c.id)
    .select_from(attempts.join(nodes, nodes.c.id == attempts.c.node_id))
    .where(LIVE)
    .where(_ASSIGNED)
    .where(attempts.c.offered.is_(False))
    .where((nodes.c.link == "offline") | (nodes.c.admin != "active"))
    .limit(bindparam("limit"))
)
_WITHOUT_NODE = (
    select(attempts.c.id)
    .select_from(attempts.outerjoin(nodes, nodes.c.id == attempts.c.node_id))
    .where(LIVE)
    .where(nodes.c.id.is_(None))
    .limit(bindparam("limit"))
)


def past_queue_deadline(connection: Connection, now: int, limit: int) -> list[str]:
    """Return pending, and assigned but never offered, attempts whose queue deadline is over."""
    wanted = {"now": now, "limit": limit}
    found = [id_ for (id_,) in connection.execute(_PAST_QUEUE, wanted)]
    return found + [id_ for (id_,) in connection.execute(_ASSIGNED_PAST_QUEUE, wanted)]


_UNFINISHED = Prepared(
    select(
        or_(
            select(attempts.c.id).where(PENDING).exists(),
            select(attempts.c.id).where(LIVE).exists(),
        )
    )
)


def is_any_unfinished(connection: Connection) -> bool:
    """Say whether any attempt is pending, assigned or running."""
    return bool(_UNFINISHED.first(connection, {})[0])


def past_lost_after(connection: Connection, now: int, limit: int) -> list[str]:
    """Return live attempts that the node should have reported long ago."""
    return [id_ for (id_,) in connection.execute(_PAST_LOST, {"now": now, "limit": limit})]


def never_offered(connection: Connection, limit: int) -> list[str]:
    """Return assigned attempts that were never offered, on nodes that cannot take them now."""
    return [id_ for (id_,) in connection.execute(_NEVER_OFFERED, {"limit": limit})]


def without_node(connection: Connection, limit: int) -> list[str]:
    """Return live attempts whose node was deleted."""
    return [id_ for (id_,) in connection.execute(_WITHOUT_NODE, {"limit": limit})]


_RETRIES = select(attempts.c.id).where(attempts.c.number > 1)


def retries(connection: Connection) -> list[str]:
    """Return all attempts that followed another one. Reads the whole table: for tests."""
    return [id_ for (id_,) in connection.execute(_RETRIES)]


def _row(row: Any) -> AttemptRow:  # noqa: ANN401 - a row of _COLUMNS
    (
        id_, state, wish, epoch, node, offered, reason, outcome, started_at, exit_, late_exit,
        task_id, run_id, target, number, queue_deadline, segment, declines, not_before,
        incarnation, stop_grace, signature, envelope, assigned_at, lost_after, ended_at,
        log_state, log_length, log_sha256, log_begins, log_hole,
    ) = row  # fmt: skip
    return AttemptRow(
        attempt=Attempt(
            id=id_,
            state=state,
            wish=wish,
            epoch=epoch,
            node=node,
            offered=bool(offered),
            reason=reason,
            outcome=outcome,
            started_at=started_at,
            exit=read_exit(exit_),
            late_exit=read_exit(late_exit),
        ),
        task_id=task_id,
        run_id=run_id,
        target=target,
        number=number,
        queue_deadline=queue_deadline,
        segment=segment,
        declines=declines,
        not_before=not_before,
        incarnation=incarnation,
        stop_grace=stop_grace,
        signature=signature,
        envelope=envelope,
        assigned_at=assigned_at,
        lost_after=lost_after,
        ended_at=ended_at,
        log_state=log_state,
        log_length=log_length,
        log_sha256=log_sha256,
        log_begins=log_begins,
        log_hole=log_hole,
    )


def _values(row: AttemptRow) -> dict[str, Any]:
    one = row.attempt
    return {
        "id": one.id,
        "state": one.state,
        "wish": one.wish,
        "epoch": one.epoch,
        "node_id": one.node,
        "offered": one.offered,
        "reason": one.reason,
        "outcome": one.outcome,
        "started_at": one.started_at,
        "exit": _as_json(one.exit),
        "late_exit": _as_json(one.late_exit),
        "task_id": row.task_id,
        "run_id": row.run_id,
        "target": row.target,
        "number": row.number,
        "queue_deadline": row.queue_deadline,
        "segment": row.segment,
        "declines": row.declines,
        "not_before": row.not_before,
        "incarnation": row.incarnation,
        "stop_grace": row.stop_grace,
        "signature": row.signature,
        "envelope": row.envelope,
        "assigned_at": row.assigned_at,
        "lost_after": row.lost_after,
        "ended_at": row.ended_at,
        "log_state": row.log_state,
        "log_length": row.log_length,
        "log_sha256": row.log_sha256,
        "log_begins": row.log_begins,
        "log_hole": row.log_hole,
    }
