"""Desired: what the links of nodes have to be told, and the orders among it.

An attempt becomes `offered` in the transaction that reads its order for a link, so before a
byte of it can be written (5.5): what was never offered can still go to another node.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple, TypeAlias

import msgspec

from fleetwire.core.attempts import FINAL, apply, offer
from fleetwire.core.desired import NodeWish, Order, Wanted
from fleetwire.core.dispatch import AdminState
from fleetwire.core.envelopes import Envelope
from fleetwire.core.happenings import Declined
from fleetwire.core.restore import Doubt, held
from fleetwire.core.specs import RunRequest, is_confined, secrets_of
from fleetwire.server.domain import restore
from fleetwire.server.domain.changes import Changes
from fleetwire.server.domain.stops import wish_of
from fleetwire.server.store import Connection, attempts, nodes, runs
from fleetwire.server.store import secrets as sealed_rows
from fleetwire.server.store import stops as stop_rows
from fleetwire.server.store.attempts import SETTLED, AttemptRow
from fleetwire.server.store.engine import Tx
from fleetwire.server.store.nodes import LinkRow
from fleetwire.server.store.stops import SignedStop, Stopped

US: Final = 1_000_000
_envelope = msgspec.json.Decoder(Envelope)


class Word(NamedTuple):
    """What a link was last told of an attempt."""

    epoch: int
    wish: NodeWish
    grace: float | None


class Asked(NamedTuple):
    """A link that wants to know what to tell its node.

    `full` asks for the whole level, else for what differs from `told`. `awaiting` are ended
    attempts whose log the link still waits to see settled. `holds`: no order is to be told yet
    (core.clones.HOLD_BEATS). `confines`: its agent knows specs that name a user or limits.
    `signs`: it is told signed stops and no others; `fenced` are (attempt, epoch) of assignments
    that are over, whose stops it still waits for.
    """

    link_epoch: int
    full: bool = False
    holds: bool = False
    told: Mapping[str, Word] = {}
    awaiting: tuple[str, ...] = ()
    confines: bool = True
    signs: bool = False
    fenced: tuple[tuple[str, int], ...] = ()


class Held(NamedTuple):
    """Beside `Wanted`: where its log goes, and, once it has ended, how long the node said the
    log is (None where it did not say).
    """

    segment: str
    ended: bool
    promised: int | None


class Level(msgspec.Struct, frozen=True):
    """The answer for one link.

    `wanted` has `have` = 0 throughout: durable lengths are the log store's, and the link puts
    them in; `held` tells more of the same attempts. `sealed`: the log is settled, so the spool
    may go. `again`: to be sent from 0 once more. `kept_back`: told without an order, or not told a
    stop, that is still to come. `fences` are stops of assignments that are over. `stale`: a newer
    link has won, or the node was deleted (`gone`); nothing else is set then.
    """

    stale: bool = False
    gone: bool = False
    revision: int = 0
    applied: int = 0
    admin: AdminState = "active"
    wanted: tuple[Wanted, ...] = ()
    held: dict[str, Held] = {}
    sealed: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    kept_back: frozenset[str] = frozenset()
    fences: tuple[Wanted, ...] = ()


Levels: TypeAlias = dict[str, Level]


def desired(tx: Tx, asked: Mapping[str, Asked], *, key: str) -> Levels:
    """Return what to tell each node's link, and mark the orders among it as offered.

    `key` is the id of the server's key, with which the orders in the rows are signed.
    """
    links = nodes.links(tx.connection, asked)
    current = {
        node: link for node, link in links.items() if link.link_epoch == asked[node].link_epoch
    }
    rows = _rows(tx, {node: asked[node] for node in current})
    changes = Changes(tx)
    for of_node in rows.values():
        changes.take(of_node)
    doubt = restore.standing(tx.connection)
    ordered = {
        row.id
        for node, of_node in rows.items()
        for row in of_node
        if _may_start(row, doubt) and not asked[node].holds
    }
    wanted = {row.run_id for of_node in rows.values() for row in of_node if row.id in ordered}
    requests = runs.requests(tx.connection, wanted) if wanted else {}
    secret = [
        row.id
        for of_node in rows.values()
        for row in of_node
        if row.run_id in requests and secrets_of(requests[row.run_id].spec)
    ]
    sealed = sealed_rows.sealed_of(tx.connection, secret) if secret else {}
    for node in current:
        if not asked[node].confines and node in rows:
            rows[node] = [
                row for row in rows[node] if not _refused(changes, row, requests.get(row.run_id))
            ]
    signed = _signed(tx, rows, {node: asked[node] for node in current})
    awaiting = [id_ for node in current for id_ in asked[node].awaiting]
    settled = attempts.settled_of(tx.connection, awaiting) if awaiting else {}
    levels = {
        node: Level(stale=True, gone=node not in links) for node in asked if node not in current
    }
    for node, link in current.items():
        of_node = rows.get(node, [])
        unsigned = _unsigned(of_node, signed) if asked[node].signs else frozenset[str]()
        if unsigned and not asked[node].full:
            of_node = [row for row in of_node if row.id not in unsigned]
        mine = {id_: settled[id_] for id_ in asked[node].awaiting if id_ in settled}
        levels[node] = Level(
            revision=link.revision,
            applied=link.applied,
            admin=link.admin,
            wanted=tuple(
                _wanted(changes, row, link, requests, key, sealed)
                if row.id in ordered
                else _told_without_order(row, signed, signs=asked[node].signs)
                for row in of_node
            ),
            kept_back=unsigned.union(
                row.id for row in of_node if _may_start(row, doubt) and row.id not in ordered
            ),
            fences=tuple(
                Wanted(id_, epoch, "stop", grace=stop.grace, stop=stop.order)
                for id_, epoch in asked[node].fenced
                if (stop := signed.get((id_, node, epoch))) is not None
            ),
            held={
                row.id: Held(row.segment, row.attempt.state in FINAL, row.log_length)
                for row in of_node
            },
            sealed=tuple(id_ for id_, state in mine.items() if state in SETTLED),
            again=tuple(id_ for id_, state in mine.items() if state == "again"),
        )
    changes.flush()
    return levels


def _rows(tx: Tx, asked: Mapping[str, Asked]) -> dict[str, list[AttemptRow]]:
    """Return the attempts each link has to hear of."""
    rows: dict[str, list[AttemptRow]] = {}
    brief = [node for node, one in asked.items() if not one.full]
    to_tell = attempts.to_tell(tx.connection, brief) if brief else []
    to_tell += attempts.given_up(tx.connection, brief) if brief else []
    for row in to_tell:
        node = str(row.attempt.node)
        told = asked[node].told.get(row.id)
        if told != Word(row.attempt.epoch, row.attempt.wish, row.stop_grace):
            rows.setdefault(node, []).append(row)
    full = [node for node, one in asked.items() if one.full]
    for row in attempts.unsettled_of_nodes(tx.connection, full) if full else ():
        rows.setdefault(str(row.attempt.node), []).append(row)
    return rows


def _may_start(row: AttemptRow, doubt: Doubt | None) -> bool:
    """Say whether its order may be told: never where it may have run already (P26)."""
    one = row.attempt
    if one.state != "assigned" or one.wish != "run":
        return False
    return held(doubt, row.id, one.node) is None


def _refused(changes: Changes, row: AttemptRow, request: RunRequest | None) -> bool:
    """Refuse, for good, what its node's agent is too old to keep: it would run the task as itself
    and without limits, did the signature not forbid that. Says whether it was refused.
    """
    one = row.attempt
    if request is None or one.state != "assigned" or one.offered or not is_confined(request.spec):
        return False
    why = (
        "its agent is too old to run a task as another user or within limits (run_as, resources): "
        "update the agent"
    )
    declined = Declined(changes.tx.now, why, final=True)
    changes.apply(apply(one, one.epoch, declined))
    return True


def _signed(
    tx: Tx, rows: Mapping[str, list[AttemptRow]], asked: Mapping[str, Asked]
) -> dict[Stopped, SignedStop]:
    """Return the signed stops among what these links have to hear."""
    ids = {
        row.id
        for node, of_node in rows.items()
        if asked[node].signs
        for row in of_node
        if row.attempt.wish == "stop"
    }
    ids.update(id_ for one in asked.values() for id_, _ in one.fenced)
    return stop_rows.signed(tx.connection, ids) if ids else {}


def _unsigned(rows: list[AttemptRow], signed: Mapping[Stopped, SignedStop]) -> frozenset[str]:
    """Return which of these are to be stopped and cannot be told so yet."""
    wishes = [wish for row in rows if (wish := wish_of(row)) is not None]
    return frozenset(
        wish.attempt
        for wish in wishes
        if (stop := signed.get(wish.of)) is None or stop.grace != wish.grace
    )


def _told_without_order(
    row: AttemptRow, signed: Mapping[Stopped, SignedStop], *, signs: bool
) -> Wanted:
    """Return the level of what has its order already, or is to have none. What was given up may
    still run there: whoever wished it to stop wishes so still.
    """
    one = row.attempt
    wish = wish_of(row)
    if wish is None:
        return Wanted(one.id, one.epoch, "run", grace=row.stop_grace)
    if not signs:
        return Wanted(one.id, one.epoch, "stop", grace=wish.grace)
    stop = signed.get(wish.of)
    if stop is None or stop.grace != wish.grace:
        return Wanted(one.id, one.epoch, "run")
    return Wanted(one.id, one.epoch, "stop", grace=wish.grace, stop=stop.order)


def _wanted(  # each argument is one source of the order
    changes: Changes,
    row: AttemptRow,
    link: LinkRow,
    requests: Mapping[str, RunRequest],
    key: str,
    sealed: Mapping[tuple[str, int], bytes],
) -> Wanted:
    """Return the level of an attempt that may still start, with its order (5.3)."""
    one = row.attempt
    if row.signature is None or row.envelope is None:
        raise AssertionError(f"attempt {one.id} was assigned without a signature")
    request = requests[row.run_id]
    spec = request.spec
    if not one.offered:
        changes.apply(offer(one))
        if row.assigned_at is not None and row.assigned_at != changes.tx.now:
            # Else it leaves in the commit of its assignment, whose line says all.
            changes.tell(row, f"order sent {(changes.tx.now - row.assigned_at) / US:.1f} s later")
        patience = spec.timeout + spec.grace + request.lost_after
        changes.alter(
            one.id, incarnation=link.incarnation, lost_after=changes.tx.now + round(patience * US)
        )
    secrets = sealed.get((one.id, one.epoch), b"")
    order = Order(spec, _envelope.decode(row.envelope), key, row.signature, secrets)
    return Wanted(one.id, one.epoch, "run", order=order)


def nodes_to_tell(connection: Connection) -> set[str]:
    """Return the nodes that may have something to hear: the sweep of the links (5.14)."""
    return attempts.nodes_to_tell(connection) | nodes.unconfirmed(connection)
