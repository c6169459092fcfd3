"""Rows of enrolment tokens: a node shows one once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection as Connection  # noqa: PLC0414 - the type that domain names
from sqlalchemy import RowMapping, bindparam, delete, insert, select, update

from fleetwire.server.store.tables import enrolment_tokens as tokens

_INSERT = insert(tokens)
# One conditional update decides who uses it: of fifty at once, one changes a row.
_USE = (
    update(tokens)
    .where(tokens.c.hash == bindparam("the_hash"))
    .where(tokens.c.used_at.is_(None))
    .where(tokens.c.expires_at > bindparam("now"))
)
_LABELS = select(tokens.c.labels).where(tokens.c.hash == bindparam("the_hash"))
_SHOWN = select(
    tokens.c.id,
    tokens.c.labels,
    tokens.c.created_by,
    tokens.c.created_at,
    tokens.c.expires_at,
    tokens.c.used_at,
    tokens.c.used_by,
)


def insert_token(connection: Connection, row: Mapping[str, Any]) -> None:
    """Store a token."""
    connection.execute(_INSERT, [dict(row)])


def use(connection: Connection, digest: str, *, node: str, now: int) -> str | None:
    """Use the token with this hash for this node; return its labels, or None if it cannot be."""
    values = {"the_hash": digest, "now": now, "used_at": now, "used_by": node}
    if connection.execute(_USE, values).rowcount != 1:
        return None
    return str(connection.execute(_LABELS, {"the_hash": digest}).scalar_one())


def page(connection: Connection, *, before: str | None, limit: int) -> list[RowMapping]:
    """Return tokens, newest first, without their hashes."""
    query = _SHOWN.order_by(tokens.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(tokens.c.id < before)
    return list(connection.execute(query).mappings())


def delete_token(connection: Connection, token: str) -> bool:
    """Forget a token; say whether it was there."""
    return bool(connection.execute(delete(tokens).where(tokens.c.id == token)).rowcount)
