"""Whether the record takes writes."""

from __future__ import annotations

from fleetwire.server.store import meta
from fleetwire.server.store.engine import Tx


def probe(tx: Tx) -> None:
    """Write something small that nobody needs: it fails when the disk is full or gone."""
    meta.put(tx.connection, "probe", str(tx.now))
