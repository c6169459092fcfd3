"""Stops on their way to nodes: wished for by whoever changes an attempt, signed by who has the
server's key (the loop `stops`), told by links (domain.desired).

Every wish to stop an attempt is written by `Changes.flush`; what still runs under an epoch that is
over is stopped by `fence`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from fleetwire.core.attempts import Attempt, may_still_run
from fleetwire.core.stops import StopEnvelope, StopOrder, in_ms, stop_bytes
from fleetwire.server.store import Connection, stops
from fleetwire.server.store.attempts import AttemptRow
from fleetwire.server.store.engine import Tx
from fleetwire.server.store.stops import StopWish

TOPIC: Final = "stops"
PER_ROUND: Final = 512


class StopSigning(NamedTuple):
    """How stops are signed: for which cluster, by which key, by what (bytes to signature)."""

    cluster: str
    key: str
    sign: Callable[[bytes], bytes]


def wish_of(row: AttemptRow) -> StopWish | None:
    """Return what its node is to be told of a row that is wished to stop, or None where it is not,
    or nothing of it can be running.
    """
    one = row.attempt
    if one.node is None or not _is_to_stop(one):
        return None
    return StopWish(one.id, one.node, one.epoch, row.run_id, row.stop_grace)


def _is_to_stop(one: Attempt) -> bool:
    return one.wish == "stop" and (one.state in {"assigned", "running"} or may_still_run(one))


def follow(tx: Tx, changed: Iterable[tuple[AttemptRow, AttemptRow]]) -> None:
    """Write what the (before, after) pairs of attempts are to be told, and forget what is done."""
    wishes, done = [], []
    for before, after in changed:
        if after.attempt.wish == "run":
            continue
        was, now = wish_of(before), wish_of(after)
        if now is not None and now != was:
            wishes.append(now)
        elif was is not None and now is None:
            done.append(was.of)
    stops.drop(tx.connection, done)
    if wishes:
        stops.put(tx.connection, wishes)
        tx.nudge(TOPIC)


def fence(tx: Tx, row: AttemptRow, node: str, epoch: int) -> None:
    """Have a node stop what it still runs of a locked row's attempt under this epoch."""
    if stops.put_new(tx.connection, [StopWish(row.id, node, epoch, row.run_id, row.stop_grace)]):
        tx.nudge(TOPIC)


def sign(tx: Tx, signing: StopSigning) -> int:
    """Sign what is not signed yet, so many at once; return how many that were."""
    wishes = stops.unsigned(tx.connection, PER_ROUND)
    stops.sign(tx.connection, [_signed(wish, signing, tx.now) for wish in wishes])
    for node in {wish.node for wish in wishes}:
        tx.nudge(f"node:{node}")
    return len(wishes)


def is_any_unsigned(connection: Connection) -> bool:
    """Say whether there is something to sign."""
    return stops.is_any_unsigned(connection)


def _signed(wish: StopWish, signing: StopSigning, now: int) -> StopOrder:
    envelope = StopEnvelope(
        cluster=signing.cluster,
        node=wish.node,
        run=wish.run,
        attempt=wish.attempt,
        epoch=wish.epoch,
        grace_ms=in_ms(wish.grace),
        issued_at=now,
    )
    return StopOrder(envelope, signing.key, signing.sign(stop_bytes(envelope)))


def sign_again(tx: Tx, key: str) -> int:
    """Have everything signed again that another key has signed; return how much that is. `key` is
    the id of the key that signs now.
    """
    count = stops.unsign_others(tx.connection, key)
    if count:
        tx.nudge(TOPIC)
    return count
