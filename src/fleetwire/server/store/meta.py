"""Facts of the whole cluster, one row each.

| key | value |
|---|---|
| cluster | the cluster's id, for ever |
| generation | upper bits of epochs; grows when a restored database is noticed (5.4) |
| epoch_counter | the next counter of this generation that nobody has reserved |
| catalogue | an opaque word that changes with every change of nodes, names or labels |
"""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, insert, select, update

from fleetwire.server.store.tables import meta

_GET = select(meta.c.value).where(meta.c.key == bindparam("k"))
_LOCK = _GET.with_for_update()
_SET = update(meta).where(meta.c.key == bindparam("k")).values(value=bindparam("v"))
_INSERT = insert(meta)


def get(connection: Connection, key: str) -> str | None:
    """Return a fact, or None."""
    return connection.execute(_GET, {"k": key}).scalar()


def lock(connection: Connection, key: str) -> str | None:
    """Return a fact that this transaction is going to change."""
    return connection.execute(_LOCK, {"k": key}).scalar()


def put(connection: Connection, key: str, value: str) -> None:
    """Store a fact."""
    if not connection.execute(_SET, {"k": key, "v": value}).rowcount:
        connection.execute(_INSERT, {"key": key, "value": value})
