"""Facts of the whole cluster, one row each.

| key | value |
|---|---|
| cluster | the cluster's id, for ever |
| generation | upper bits of epochs; grows when a restored database is noticed (5.4) |
| epoch_counter | the next counter of this generation that nobody has reserved |
| breaker | the mass-offline breaker while it is open (P11), else empty |
| restored, doubt:NODE | what a restore has left to settle (domain.restore) |
| signing_key | id of the key that has signed all that is still to start |
| admission | an opaque word that changes whenever a node loses its right to a link |
| catalogue | an opaque word that changes with every change of nodes, names or labels |
"""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from fleetwire.server.store.prepared import Prepared
from fleetwire.server.store.tables import meta

_SELECT = select(meta.c.value).where(meta.c.key == bindparam("k"))
_GET = Prepared(_SELECT)
_LOCK = Prepared(_SELECT.with_for_update())
_SET = Prepared(update(meta).where(meta.c.key == bindparam("k")), ["value"])
_INSERT = insert(meta)
_DELETE = delete(meta).where(meta.c.key == bindparam("k"))


def get(connection: Connection, key: str) -> str | None:
    """Return a fact, or None."""
    row = _GET.first(connection, {"k": key})
    return None if row is None else str(row[0])


def lock(connection: Connection, key: str) -> str | None:
    """Return a fact that this transaction is going to change."""
    row = _LOCK.first(connection, {"k": key})
    return None if row is None else str(row[0])


def beginning_with(connection: Connection, prefix: str) -> dict[str, str]:
    """Return the facts whose keys begin so."""
    query = select(meta.c.key, meta.c.value).where(meta.c.key.startswith(prefix, autoescape=True))
    return {key: value for key, value in connection.execute(query)}  # noqa: C416 - rows are no pairs to the type checker


def remove(connection: Connection, key: str) -> None:
    """Forget a fact."""
    connection.execute(_DELETE, {"k": key})


def put(connection: Connection, key: str, value: str) -> None:
    """Store a fact."""
    if not _SET.change(connection, {"k": key, "value": value}):
        connection.execute(_INSERT, {"key": key, "value": value})
