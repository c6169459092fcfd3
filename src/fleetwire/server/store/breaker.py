"""The mass-offline breaker's row: the fact `breaker` of `meta`, empty while it is closed."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection

from fleetwire.core.breaker import Breaker
from fleetwire.server.store import meta

KEY = "breaker"
_encode = msgspec.json.Encoder().encode
_read = msgspec.json.Decoder(Breaker)


def get(connection: Connection) -> Breaker | None:
    """Return the open breaker, None while it is closed."""
    value = meta.get(connection, KEY)
    return _read.decode(value) if value else None


def lock(connection: Connection) -> Breaker | None:
    """Return the open breaker, for this transaction to change."""
    value = meta.lock(connection, KEY)
    return _read.decode(value) if value else None


def put(connection: Connection, breaker: Breaker | None) -> None:
    """Store the breaker; None closes it."""
    meta.put(connection, KEY, "" if breaker is None else _encode(breaker).decode())
