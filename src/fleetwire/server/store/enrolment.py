"""Rows of enrolment tokens: a node shows one once."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection as Connection  # noqa: PLC0414 - the type that domain names
from sqlalchemy import RowMapping, bindparam, delete, insert, or_, select, update

from fleetwire.server.store.tables import enrolment_tokens as tokens
from fleetwire.server.store.tables import enrolment_uses as uses
from fleetwire.server.store.tables import projects

_INSERT = insert(tokens)
# One conditional update decides who uses it: of fifty at once, one changes a row.
_USE = (
    update(tokens)
    .where(tokens.c.hash == bindparam("the_hash"))
    .where(tokens.c.used_at.is_(None))
    .where(tokens.c.expires_at > bindparam("now"))
)
_FOUND = select(
    tokens.c.id,
    tokens.c.labels,
    tokens.c.project_id,
    tokens.c.name_pattern,
    tokens.c.network,
    tokens.c.approval,
    tokens.c.expires_at,
    tokens.c.used_at,
    tokens.c.used_by,
).where(tokens.c.hash == bindparam("the_hash"))
_SHOWN = select(
    tokens.c.id,
    tokens.c.labels,
    tokens.c.created_by,
    tokens.c.created_at,
    tokens.c.expires_at,
    tokens.c.used_at,
    tokens.c.used_by,
    tokens.c.name_pattern,
    tokens.c.network,
    tokens.c.approval,
    projects.c.name.label("project"),
).select_from(tokens.join(projects, projects.c.id == tokens.c.project_id))


def insert_token(connection: Connection, row: Mapping[str, Any]) -> None:
    """Store a token."""
    connection.execute(_INSERT, [dict(row)])


class Found(NamedTuple):
    """A token, by the hash of what was shown. Times are microseconds since 1970."""

    id: str
    labels: str
    project: str
    name_pattern: str | None
    network: str | None
    approval: bool
    expires_at: int
    used_at: int | None
    used_by: str | None


def find(connection: Connection, digest: str) -> Found | None:
    """Return the token with this hash."""
    row = connection.execute(_FOUND, {"the_hash": digest}).first()
    return None if row is None else Found(*row)


def use(connection: Connection, digest: str, *, node: str, now: int) -> bool:
    """Use the token with this hash for this node; say whether it could be."""
    values = {"the_hash": digest, "now": now, "used_at": now, "used_by": node}
    return connection.execute(_USE, values).rowcount == 1


def record_use(connection: Connection, row: Mapping[str, Any]) -> None:
    """Store that somebody has shown a token."""
    connection.execute(insert(uses), [dict(row)])


_USES = select(
    uses.c.id, uses.c.at, uses.c.token_id, uses.c.node_id, uses.c.name, uses.c.address,
    uses.c.outcome,
)  # fmt: skip


def uses_page(
    connection: Connection,
    *,
    before: int | None,
    limit: int,
    within: Collection[str],
    unknown: bool,
) -> list[RowMapping]:
    """Return uses of these projects' tokens, newest first, from below the id `before`; with
    `unknown` also those of what is no token.
    """
    of_these = uses.c.project_id.in_(within)
    shown = or_(of_these, uses.c.project_id.is_(None)) if unknown else of_these
    query = _USES.where(shown).order_by(uses.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(uses.c.id < before)
    return list(connection.execute(query).mappings())


def page(
    connection: Connection,
    *,
    before: str | None,
    limit: int,
    within: Collection[str] | None = None,
) -> list[RowMapping]:
    """Return tokens of these projects or of all, newest first, without their hashes."""
    query = _SHOWN.order_by(tokens.c.id.desc()).limit(limit)
    if within is not None:
        query = query.where(tokens.c.project_id.in_(within))
    if before is not None:
        query = query.where(tokens.c.id < before)
    return list(connection.execute(query).mappings())


def project_of(connection: Connection, token: str) -> str | None:
    """Return the project of a token, by its id."""
    query = select(tokens.c.project_id).where(tokens.c.id == token)
    found: str | None = connection.execute(query).scalar()
    return found


def delete_token(
    connection: Connection, token: str, *, within: Collection[str] | None = None
) -> bool:
    """Forget a token of one of these projects or of any; say whether it was there."""
    query = delete(tokens).where(tokens.c.id == token)
    if within is not None:
        query = query.where(tokens.c.project_id.in_(within))
    return bool(connection.execute(query).rowcount)
