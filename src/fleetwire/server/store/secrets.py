"""Rows of secrets: encrypted values, and what is sealed for a node until its attempt has begun."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection as Connection  # noqa: PLC0414 - the type that domain names
from sqlalchemy import and_, bindparam, delete, func, insert, or_, select, update

from fleetwire.core.secrets import Box
from fleetwire.server.store.prepared import PreparedIn
from fleetwire.server.store.tables import attempts, projects, sealed_secrets, secrets, users


class SecretRow(msgspec.Struct, frozen=True):
    """A secret without its value; `project` and `updated_by` are names, times are microseconds."""

    project_id: str
    project: str
    name: str
    version: int
    created_at: int
    updated_at: int
    updated_by: str
    last_used_at: int | None


class ValueRow(msgspec.Struct, frozen=True):
    """An encrypted value."""

    project: str
    name: str
    version: int
    box: Box


_SHOWN = select(
    secrets.c.project_id,
    projects.c.name,
    secrets.c.name,
    secrets.c.version,
    secrets.c.created_at,
    secrets.c.updated_at,
    func.coalesce(users.c.name, secrets.c.updated_by),
    secrets.c.last_used_at,
).select_from(
    secrets.join(projects, projects.c.id == secrets.c.project_id).outerjoin(
        users, users.c.id == secrets.c.updated_by
    )
)
_VALUES = select(
    secrets.c.project_id,
    secrets.c.name,
    secrets.c.version,
    secrets.c.key_id,
    secrets.c.nonce,
    secrets.c.data,
)
_ONE = and_(
    secrets.c.project_id == bindparam("the_project"), secrets.c.name == bindparam("the_name")
)
_UPDATE = update(secrets).where(_ONE)
_SEALED = PreparedIn(
    lambda ids: select(
        sealed_secrets.c.attempt_id, sealed_secrets.c.epoch, sealed_secrets.c.body
    ).where(sealed_secrets.c.attempt_id.in_(ids))
)
# What is sealed is needed until its attempt has begun, or cannot begin any more.
_SPENT = (
    select(sealed_secrets.c.attempt_id, sealed_secrets.c.epoch)
    .join_from(sealed_secrets, attempts, attempts.c.id == sealed_secrets.c.attempt_id, isouter=True)
    .where(
        or_(
            attempts.c.id.is_(None),
            attempts.c.state != "assigned",
            attempts.c.epoch != sealed_secrets.c.epoch,
        )
    )
    .limit(512)
)

_DROP = (
    delete(sealed_secrets)
    .where(sealed_secrets.c.attempt_id == bindparam("attempt"))
    .where(sealed_secrets.c.epoch == bindparam("of"))
)


def page(
    connection: Connection,
    within: Collection[str],
    *,
    after: tuple[str, str] | None,
    limit: int,
) -> list[SecretRow]:
    """Return the secrets of these projects by name, without their values; `after` is the name and
    the project's id of the last one that is known.
    """
    query = (
        _SHOWN.where(secrets.c.project_id.in_(within))
        .order_by(secrets.c.name, secrets.c.project_id)
        .limit(limit)
    )
    if after is not None:
        name, project = after
        same = and_(secrets.c.name == name, secrets.c.project_id > project)
        query = query.where(or_(secrets.c.name > name, same))
    return [SecretRow(*row) for row in connection.execute(query)]


def one(connection: Connection, project: str, name: str) -> SecretRow | None:
    """Return one secret without its value."""
    query = _SHOWN.where(secrets.c.project_id == project).where(secrets.c.name == name)
    row = connection.execute(query).first()
    return None if row is None else SecretRow(*row)


def values(connection: Connection, project: str, names: Collection[str]) -> dict[str, ValueRow]:
    """Return those of these secrets that exist, with their encrypted values."""
    query = _VALUES.where(secrets.c.project_id == project).where(secrets.c.name.in_(list(names)))
    return {row[1]: _value(row) for row in connection.execute(query)}


def all_values(connection: Connection) -> list[ValueRow]:
    """Return every secret's encrypted value, locked: they are about to be encrypted anew."""
    return [_value(row) for row in connection.execute(_VALUES.with_for_update())]


def key_ids(connection: Connection) -> frozenset[str]:
    """Return the ids of the keys that the values are encrypted with."""
    return frozenset(row[0] for row in connection.execute(select(secrets.c.key_id).distinct()))


def insert_secret(connection: Connection, row: Mapping[str, Any]) -> None:
    """Store a new secret."""
    connection.execute(insert(secrets), [dict(row)])


def change(connection: Connection, project: str, name: str, **columns: object) -> None:
    """Set columns of a secret."""
    connection.execute(_UPDATE, {"the_project": project, "the_name": name, **columns})


def remove(connection: Connection, project: str, name: str) -> bool:
    """Delete a secret; say whether it was there."""
    return bool(
        connection.execute(
            delete(secrets).where(_ONE), {"the_project": project, "the_name": name}
        ).rowcount
    )


def remove_all(connection: Connection) -> int:
    """Delete every secret; return how many there were."""
    return int(connection.execute(delete(secrets)).rowcount)


def put_sealed(connection: Connection, sealed: Mapping[str, tuple[int, bytes]]) -> None:
    """Store what is sealed, by attempt, with the epoch that it is for."""
    if not sealed:
        return
    connection.execute(delete(sealed_secrets).where(sealed_secrets.c.attempt_id.in_(sealed)))
    connection.execute(
        insert(sealed_secrets),
        [
            {"attempt_id": attempt, "epoch": epoch, "body": body}
            for attempt, (epoch, body) in sealed.items()
        ],
    )


def sealed_of(connection: Connection, ids: Sequence[str]) -> dict[tuple[str, int], bytes]:
    """Return what is sealed for these attempts, by attempt and epoch."""
    return {(id_, epoch): bytes(body) for id_, epoch, body in _SEALED.rows(connection, ids)}


def spent(connection: Connection) -> tuple[list[tuple[str, int]], bool]:
    """Return what is sealed and not needed any more, as attempt and epoch, and whether there is
    anything sealed at all.
    """
    found = [(id_, epoch) for id_, epoch in connection.execute(_SPENT)]
    some = connection.execute(select(sealed_secrets.c.attempt_id).limit(1)).first()
    return found, some is not None


def drop_sealed(connection: Connection, spent: Sequence[tuple[str, int]]) -> None:
    """Forget what was sealed for these attempts in these epochs; what was sealed since stays."""
    connection.execute(_DROP, [{"attempt": id_, "of": epoch} for id_, epoch in spent])


def _value(row: Any) -> ValueRow:  # noqa: ANN401 - a row of _VALUES
    project, name, version, key_id, nonce, data = row
    return ValueRow(project, name, version, Box(key_id, bytes(nonce), bytes(data)))
