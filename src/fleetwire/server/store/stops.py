"""Rows of stop orders: wished for without a signature, then signed, then told."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import msgspec
from sqlalchemy import Connection as Connection  # noqa: PLC0414 - the type that domain names
from sqlalchemy import bindparam, delete, insert, or_, select, text, update

from fleetwire.core.stops import StopEnvelope, StopOrder
from fleetwire.server.store.prepared import Prepared, PreparedIn
from fleetwire.server.store.tables import stop_orders

Stopped: TypeAlias = tuple[str, str, int]
"""What a stop order is of: attempt, node, epoch."""


class StopWish(NamedTuple):
    """A stop that somebody has wished for. `grace` is in seconds, None for the spec's own."""

    attempt: str
    node: str
    epoch: int
    run: str
    grace: float | None

    @property
    def of(self) -> Stopped:
        """What it is of."""
        return self.attempt, self.node, self.epoch


class SignedStop(NamedTuple):
    """A stop that can be told, with its grace in seconds."""

    grace: float | None
    order: StopOrder


_encode = msgspec.json.Encoder().encode
_envelope = msgspec.json.Decoder(StopEnvelope)
_KEY = ("attempt_id", "node_id", "epoch")
_COLUMNS = (*_KEY, "run_id", "grace")
_INSERT = Prepared(insert(stop_orders), _COLUMNS)
_ONE = (
    (stop_orders.c.attempt_id == bindparam("the_attempt"))
    & (stop_orders.c.node_id == bindparam("the_node"))
    & (stop_orders.c.epoch == bindparam("the_epoch"))
)
_DELETE = delete(stop_orders).where(_ONE)
_SIGN = Prepared(update(stop_orders).where(_ONE), ("key_id", "envelope", "signature"))
_OF = PreparedIn(
    lambda ids: select(stop_orders.c.attempt_id, stop_orders.c.node_id, stop_orders.c.epoch).where(
        stop_orders.c.attempt_id.in_(ids)
    )
)
_SIGNED = PreparedIn(
    lambda ids: (
        select(
            stop_orders.c.attempt_id,
            stop_orders.c.node_id,
            stop_orders.c.epoch,
            stop_orders.c.grace,
            stop_orders.c.key_id,
            stop_orders.c.envelope,
            stop_orders.c.signature,
        )
        .where(stop_orders.c.attempt_id.in_(ids))
        .where(stop_orders.c.signature.is_not(None))
    )
)
_IS_UNSIGNED = text("stop_orders.signature IS NULL")
_ANY_UNSIGNED = Prepared(select(stop_orders.c.attempt_id).where(_IS_UNSIGNED).limit(1))
_UNSIGNED = Prepared(
    select(*(stop_orders.c[name] for name in _COLUMNS))
    .where(_IS_UNSIGNED)
    .limit(bindparam("limit"))
    .with_for_update()
)


def put(connection: Connection, wishes: Sequence[StopWish]) -> None:
    """Store wishes, which are still to be signed; they take the place of earlier ones."""
    drop(connection, [wish.of for wish in wishes])
    _INSERT.change_all(connection, [_values(wish) for wish in wishes])


def put_new(connection: Connection, wishes: Sequence[StopWish]) -> int:
    """Store those wishes that there are none of yet; return how many that were. The attempts'
    rows must be locked.
    """
    known = {tuple(row) for row in _OF.rows(connection, [wish.attempt for wish in wishes])}
    new = {wish.of: wish for wish in wishes if wish.of not in known}
    if new:
        _INSERT.change_all(connection, [_values(wish) for wish in new.values()])
    return len(new)


def drop(connection: Connection, stopped: Iterable[Stopped]) -> None:
    """Forget these, where they are there."""
    parameters = [
        {"the_attempt": attempt, "the_node": node, "the_epoch": epoch}
        for attempt, node, epoch in stopped
    ]
    if parameters:
        connection.execute(_DELETE, parameters)


def is_any_unsigned(connection: Connection) -> bool:
    """Say whether a wish is not signed yet."""
    return _ANY_UNSIGNED.first(connection, {}) is not None


def unsigned(connection: Connection, limit: int) -> list[StopWish]:
    """Return wishes that are not signed yet, locked."""
    return [StopWish(*row) for row in _UNSIGNED.rows(connection, {"limit": limit})]


def sign(connection: Connection, orders: Iterable[StopOrder]) -> None:
    """Store the signatures of wishes."""
    parameters = [
        {
            "the_attempt": order.envelope.attempt,
            "the_node": order.envelope.node,
            "the_epoch": order.envelope.epoch,
            "key_id": order.key,
            "envelope": _encode(order.envelope).decode(),
            "signature": order.signature,
        }
        for order in orders
    ]
    if parameters:
        _SIGN.change_all(connection, parameters)


def signed(connection: Connection, attempts: Collection[str]) -> dict[Stopped, SignedStop]:
    """Return what can be told of these attempts."""
    rows: list[Any] = _SIGNED.rows(connection, list(attempts))
    return {
        (attempt, node, epoch): SignedStop(
            grace, StopOrder(_envelope.decode(envelope), key, bytes(signature))
        )
        for attempt, node, epoch, grace, key, envelope, signature in rows
    }


def unsign_others(connection: Connection, key: str) -> int:
    """Take the signatures of all keys but this one away; return how many there were."""
    others = or_(stop_orders.c.key_id != key, stop_orders.c.key_id.is_(None))
    done = connection.execute(
        update(stop_orders)
        .where(stop_orders.c.signature.is_not(None))
        .where(others)
        .values(signature=None, envelope=None, key_id=None)
    )
    return int(done.rowcount)


def _values(wish: StopWish) -> dict[str, Any]:
    return {
        "attempt_id": wish.attempt,
        "node_id": wish.node,
        "epoch": wish.epoch,
        "run_id": wish.run,
        "grace": wish.grace,
    }
