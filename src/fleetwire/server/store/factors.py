"""Rows of second factors and recovery codes, and of identities at OpenID providers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import Connection, delete, func, insert, select, text, update

from fleetwire.core.secrets import Box
from fleetwire.server.store.tables import identities, recovery_codes, totps

_BOX = (totps.c.key_id, totps.c.nonce, totps.c.data)
_ENCRYPTED = totps.c.key_id.is_not(None)


class TotpRow(NamedTuple):
    """A second factor; it counts where `confirmed_at` is not None. `box` is its secret."""

    box: Box
    confirmed_at: int | None
    last_step: int


def confirmed_at(connection: Connection, user: str) -> int | None:
    """Return since when a user has a second factor that counts (microseconds), None without one."""
    query = select(totps.c.confirmed_at).where(totps.c.user_id == user)
    found: int | None = connection.execute(query).scalar()
    return found


def totp(connection: Connection, user: str) -> TotpRow | None:
    """Return a user's second factor, locked for this transaction to use."""
    query = select(*_BOX, totps.c.confirmed_at, totps.c.last_step).where(totps.c.user_id == user)
    row = connection.execute(query.where(_ENCRYPTED).with_for_update()).first()
    return None if row is None else TotpRow(_box(*row[:3]), *row[3:])


def put_totp(connection: Connection, user: str, box: Box, now: int) -> None:
    """Begin a second factor anew; it does not count yet."""
    forget_totp(connection, user)
    row = {"user_id": user, "created_at": now, "last_step": 0, **box._asdict()}
    connection.execute(insert(totps), [row])


def put_box(connection: Connection, user: str, box: Box) -> None:
    """Set how a second factor's secret is encrypted; none stands readable afterwards."""
    change_totp(connection, user, secret=None, **box._asdict())


def boxes(connection: Connection) -> dict[str, Box]:
    """Return all encrypted secrets by user, locked: they are about to be encrypted anew."""
    query = select(totps.c.user_id, *_BOX).where(_ENCRYPTED).with_for_update()
    return {row[0]: _box(*row[1:]) for row in connection.execute(query)}


def readable(connection: Connection) -> dict[str, str]:
    """Return the secrets that are not encrypted, by user: of an older server. What is written
    over them is to leave nothing of them in the file.
    """
    query = select(totps.c.user_id, totps.c.secret).where(totps.c.secret.is_not(None))
    found: dict[str, str] = {row[0]: row[1] for row in connection.execute(query.with_for_update())}
    if found and connection.dialect.name == "sqlite":
        connection.execute(text("PRAGMA secure_delete = ON"))
    return found


def key_ids(connection: Connection) -> frozenset[str]:
    """Return the ids of the keys that the secrets are encrypted with."""
    query = select(totps.c.key_id).where(_ENCRYPTED).distinct()
    return frozenset(row[0] for row in connection.execute(query))


def forget_all(connection: Connection) -> int:
    """Forget every second factor with its recovery codes; return how many there were."""
    connection.execute(delete(recovery_codes))
    return int(connection.execute(delete(totps)).rowcount)


def change_totp(connection: Connection, user: str, **values: object) -> None:
    """Set columns of a second factor."""
    connection.execute(update(totps).where(totps.c.user_id == user).values(**values))


def forget_totp(connection: Connection, user: str) -> None:
    """Forget a user's second factor and recovery codes."""
    connection.execute(delete(recovery_codes).where(recovery_codes.c.user_id == user))
    connection.execute(delete(totps).where(totps.c.user_id == user))


def put_recovery(connection: Connection, user: str, hashes: Iterable[str]) -> None:
    """Make these a user's recovery codes."""
    connection.execute(delete(recovery_codes).where(recovery_codes.c.user_id == user))
    rows = [{"user_id": user, "hash": one} for one in hashes]
    connection.execute(insert(recovery_codes), rows)


def use_recovery(connection: Connection, user: str, digest: str) -> bool:
    """Use up a recovery code; say whether it was there."""
    query = (
        delete(recovery_codes)
        .where(recovery_codes.c.user_id == user)
        .where(recovery_codes.c.hash == digest)
    )
    return connection.execute(query).rowcount == 1


def count_recovery(connection: Connection, user: str) -> int:
    """Return how many recovery codes are left."""
    query = select(func.count()).where(recovery_codes.c.user_id == user)
    return int(connection.execute(query).scalar_one())


def user_of(connection: Connection, issuer: str, subject: str) -> str | None:
    """Return who this is here."""
    query = (
        select(identities.c.user_id)
        .where(identities.c.issuer == issuer)
        .where(identities.c.subject == subject)
    )
    found: str | None = connection.execute(query).scalar()
    return found


def put_identity(connection: Connection, *, issuer: str, subject: str, user: str, now: int) -> None:
    """Remember who somebody is at a provider."""
    row = {"issuer": issuer, "subject": subject, "user_id": user, "created_at": now}
    connection.execute(insert(identities), [row])


def _box(key_id: str, nonce: bytes, data: bytes) -> Box:
    return Box(key_id, bytes(nonce), bytes(data))
