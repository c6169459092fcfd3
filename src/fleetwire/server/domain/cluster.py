"""Facts of the cluster: its id, and the numbers that fence its assignments (5.4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from fleetwire.core.leases import generation_past
from fleetwire.server.store import meta
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
    return Cluster(cluster, generation(tx))


def generation(tx: Tx) -> int:
    """Return the generation of epochs that are given now; it stays until this transaction ends."""
    return int(meta.lock(tx.connection, "generation") or FIRST_GENERATION)


def raise_generation(tx: Tx, seen_by_node: int) -> int:
    """Go past a generation that a node has seen and we have not: our database was restored (5.4).

    Return the generation from now on. Blocks reserved before are void: `generation` tells.
    """
    ours = generation(tx)
    past = generation_past(ours, seen_by_node)
    if past != ours:
        meta.put(tx.connection, "generation", str(past))
        meta.put(tx.connection, "epoch_counter", "1")
    return past


def reserve_epochs(tx: Tx, count: int) -> EpochBlock:
    """Reserve counters, so that orders can be signed before the transaction that assigns them."""
    now = generation(tx)
    first = int(meta.lock(tx.connection, "epoch_counter") or 1)
    meta.put(tx.connection, "epoch_counter", str(first + count))
    return EpochBlock(now, first, count)
