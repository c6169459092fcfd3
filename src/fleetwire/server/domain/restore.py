"""What follows from a restored record (P26): doubt about what waits, and how it is settled.

`meta` has `restored` (the id below which attempts are in doubt) and one row `doubt:{node}` for each
node that was enrolled then: empty until the node has said all that it has, then the moment of that,
and the ids of what began there before the backup and was not mentioned; gone when that is settled.

Not every restored record is known to be one: a copy that was put back by hand may be of the newest
generation. So whatever a node does not mention, though it began there, it is asked for once before
it is called lost, doubt or not.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from fleetwire.core import limits
from fleetwire.core.attempts import FINAL, SPOOL_GONE, declare_lost, expire, lose_in_doubt
from fleetwire.core.errors import FleetwireError
from fleetwire.core.ids import RANDOM_BYTES, make_id, time_of
from fleetwire.core.restore import LOST_IN_DOUBT, Doubt, held
from fleetwire.server.domain import cluster
from fleetwire.server.domain.changes import Changes
from fleetwire.server.store import Connection, attempts, decisions, meta, nodes
from fleetwire.server.store.attempts import AttemptRow
from fleetwire.server.store.decisions import Decision
from fleetwire.server.store.engine import Tx

ANSWER_US: Final = 10_000_000
"""A node that is connected answers within milliseconds; so long is waited for it."""
PATIENCE_US: Final = round(limits.LOST_AFTER_S * 1_000_000)
AT_ONCE: Final = 1000
_RESTORED: Final = "restored"
_DOUBT: Final = "doubt:"


class ClockBehind(FleetwireError):
    """The machine's clock is behind the record that is put back."""

    code = "clock-behind"


class Asked(NamedTuple):
    """An attempt that a node is asked for: what it has of it, it says again."""

    attempt: str
    epoch: int
    segment: str


def begin_doubt(tx: Tx) -> int:
    """Take note that this record was put back: go past every generation that was given, and hold
    what waits until each node has spoken. Return the generation from now on. Raises ClockBehind.
    """
    newest = attempts.newest(tx.connection)
    if newest is not None and time_of(newest) > tx.now:
        raise ClockBehind(
            "The record holds runs of a later time than this machine's clock shows: "
            f"{(time_of(newest) - tx.now) // 1_000_000} s later.",
            hint="Set the clock first: what ran before the backup and what is new are told apart "
            "by their time.",
        )
    generation = cluster.raise_generation(tx, cluster.generation(tx), at_least_one=True)
    hold(tx, generation)
    return generation


def go_past(tx: Tx, seen_by_node: int) -> None:
    """A node has seen this generation: where it is ahead of ours, our record was put back."""
    ours = cluster.generation(tx)
    generation = cluster.raise_generation(tx, seen_by_node)
    if generation != ours:
        hold(tx, generation)


def hold(tx: Tx, generation: int) -> None:
    """Hold what waits now until each node has spoken, which it has a day for: what waited has
    its deadlines from before the backup, and some of them passed since.
    """
    attempts.grant_time(tx.connection, tx.now + PATIENCE_US)
    meta.put(tx.connection, _RESTORED, make_id(tx.now + 1000, bytes(RANDOM_BYTES)))
    for node in nodes.all_ids(tx.connection):
        meta.put(tx.connection, f"{_DOUBT}{node}", "")
    text = (
        f"this record is older than its nodes: generation {generation}; what waited is held until "
        "they have said what they did since"
    )
    decisions.record(tx.connection, [Decision(tx.now, None, None, None, None, text)])
    tx.nudge("nodes")


def standing(connection: Connection) -> Doubt | None:
    """Return the doubt that there is, or None."""
    before = meta.get(connection, _RESTORED)
    if before is None:
        return None
    asked = [key.removeprefix(_DOUBT) for key in meta.beginning_with(connection, _DOUBT)]
    return Doubt(before, nodes.names(connection, asked))


class Heard(NamedTuple):
    """What follows from a node's complete report. A folder that is sealed is not mentioned any
    more, and may be there: so what it did not mention it is asked for all the same (`asked`, which
    is for doubt; what began there is in the level that it was told), and nothing is concluded yet
    from its silence (`spared`).
    """

    asked: tuple[Asked, ...] = ()
    spared: frozenset[str] = frozenset()


def heard(changes: Changes, node: str, mentioned: frozenset[str], begun: list[str]) -> Heard:
    """A node has said all it has. `begun` are the attempts that the record knows to have begun
    there and whose log is not settled: the level that the node was told names them already.
    """
    tx = changes.tx
    key = f"{_DOUBT}{node}"
    known = meta.get(tx.connection, key)
    before = meta.get(tx.connection, _RESTORED)
    if known:
        return Heard(spared=frozenset(known.split()[1:]))
    silent = [id_ for id_ in begun if id_ not in mentioned]
    in_doubt = before is not None and known is not None
    if silent or in_doubt:
        meta.put(tx.connection, key, " ".join([str(tx.now), *silent]))
    spared = frozenset(silent)
    if before is None or known is None:
        return Heard(spared=spared)
    rows = attempts.in_doubt(tx.connection, node=node, before=before, limit=AT_ONCE)
    rows += attempts.in_doubt(tx.connection, node=None, before=before, limit=AT_ONCE)
    asked = [
        Asked(row.id, row.attempt.epoch, row.segment) for row in rows if row.id not in mentioned
    ]
    return Heard(tuple(asked), spared)


def is_held(doubt: Doubt | None, row: AttemptRow) -> bool:
    """Say whether it may have begun, whatever the record says of it."""
    if row.attempt.state not in {"pending", "assigned"}:
        return False
    return held(doubt, row.id, row.attempt.node or row.target) is not None


def end_waiting(
    changes: Changes, id_: str, why: str, doubt: Doubt | None, *, node: str | None = None
) -> None:
    """It waits no longer, because of `why`: it has expired, or is lost where it may have begun.
    `node` is whose story it belongs to as well.
    """
    row = changes[id_]
    if is_held(doubt, row):
        _lose_one(changes, row)
    else:
        changes.apply(expire(row.attempt, why), node=node)


def settle(tx: Tx) -> bool:
    """End the doubt about nodes that had time to answer, and about those that were deleted; say
    whether there was any.
    """
    before = meta.get(tx.connection, _RESTORED)
    asked = meta.beginning_with(tx.connection, _DOUBT)
    if before is None and not asked:
        return False
    known = nodes.names(tx.connection, [key.removeprefix(_DOUBT) for key in asked])
    changes = Changes(tx)
    left = len(asked)
    for key, said in asked.items():
        node = key.removeprefix(_DOUBT)
        at, *silent = said.split() or [""]
        if node in known and (not at or int(at) + ANSWER_US > tx.now):
            continue
        _lose_silent(changes, silent)
        if before is None or _lose(changes, node, before):
            meta.remove(tx.connection, key)
            left -= 1
    if before is not None and not left and _lose(changes, None, before):
        meta.remove(tx.connection, _RESTORED)
    changes.flush()
    tx.nudge("sealing")
    tx.nudge("dispatch")
    return True


def _lose(changes: Changes, node: str | None, before: str) -> bool:
    """Give up what is still in doubt on a node, or on none; say whether that was all."""
    connection = changes.tx.connection
    rows = attempts.in_doubt(connection, node=node, before=before, limit=AT_ONCE)
    changes.take(rows)
    for row in rows:
        _lose_one(changes, row)
    return len(rows) < AT_ONCE


def _lose_silent(changes: Changes, ids: list[str]) -> None:
    """What had begun there before the backup, and nothing came of it when it was asked for. What
    has ended by now may be sending its log: that is for the node's next report to say.
    """
    changes.load(ids)
    for id_ in ids:
        row = changes.get(id_)
        if row is not None and row.attempt.state not in FINAL:
            after = changes.apply(declare_lost(row.attempt, SPOOL_GONE))
            if after.log_state in {"open", "again"}:
                changes.alter(id_, log_state="gone")


def _lose_one(changes: Changes, row: AttemptRow) -> None:
    after = changes.apply(lose_in_doubt(row.attempt, LOST_IN_DOUBT))
    if after.log_state in {"open", "again"}:
        changes.alter(row.id, log_state="gone")
