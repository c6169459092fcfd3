"""Facts of the cluster: its id, and the numbers that fence its assignments (5.4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from fleetwire.core.leases import generation_past
from fleetwire.core.restore import generation_to_begin
from fleetwire.server.store import Connection, meta
from fleetwire.server.store.engine import Tx

FIRST_GENERATION: Final = 1


class Cluster(msgspec.Struct, frozen=True):
    """Which cluster this database holds."""

    id: str
    generation: int


class EpochBlock(msgspec.Struct, frozen=True):
    """Counters that nobody else will use: `first` to `first + count - 1` of a generation."""

    generation: int
    first: int
    count: int


def found(tx: Tx, ids: Callable[[], str]) -> Cluster:
    """Return the cluster's facts; the first call in an empty database founds it."""
    cluster = meta.lock(tx.connection, "cluster")
    if cluster is None:
        cluster = ids()
        meta.put(tx.connection, "cluster", cluster)
        meta.put(tx.connection, "generation", str(FIRST_GENERATION))
        meta.put(tx.connection, "epoch_counter", "1")
        meta.put(tx.connection, "catalogue", cluster)
    else:
        _begin_generation(tx)
    return Cluster(cluster, generation(tx))


def id_of(connection: Connection) -> str | None:
    """Return the cluster's id, None where none was founded yet."""
    return meta.get(connection, "cluster")


def _begin_generation(tx: Tx) -> None:
    """Give epochs of a new generation from here on, as every process that begins does: a record
    that was put back without a word goes past what was given since (core.restore).
    """
    ours = generation(tx)
    is_used = int(meta.lock(tx.connection, "epoch_counter") or 1) > 1
    _set_generation(tx, ours, generation_to_begin(ours, is_used=is_used, now=tx.now))


def _set_generation(tx: Tx, ours: int, now: int) -> None:
    if now != ours:
        meta.put(tx.connection, "generation", str(now))
        meta.put(tx.connection, "epoch_counter", "1")


def generation(tx: Tx) -> int:
    """Return the generation of epochs that are given now; it stays until this transaction ends."""
    return int(meta.lock(tx.connection, "generation") or FIRST_GENERATION)


def raise_generation(tx: Tx, seen_by_node: int, *, at_least_one: bool = False) -> int:
    """Go past a generation that a node has seen and we have not: our database was restored (5.4).
    With `at_least_one` go past our own as well.

    Return the generation from now on. Blocks reserved before are void: `generation` tells.
    """
    ours = generation(tx)
    past = generation_past(ours, seen_by_node)
    if at_least_one:
        past = max(past, generation_to_begin(ours, is_used=True, now=tx.now))
    _set_generation(tx, ours, past)
    return past


def reserve_epochs(tx: Tx, count: int) -> EpochBlock:
    """Reserve counters, so that orders can be signed before the transaction that assigns them."""
    now = generation(tx)
    first = int(meta.lock(tx.connection, "epoch_counter") or 1)
    meta.put(tx.connection, "epoch_counter", str(first + count))
    return EpochBlock(now, first, count)
