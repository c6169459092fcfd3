"""Rows of second factors and recovery codes, and of identities at OpenID providers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import Connection, delete, func, insert, select, update

from fleetwire.server.store.tables import identities, recovery_codes, totps


class TotpRow(NamedTuple):
    """A second factor; it counts where `confirmed_at` is not None."""

    secret: str
    confirmed_at: int | None
    last_step: int


def is_confirmed(connection: Connection, user: str) -> bool:
    """Say whether a user has a second factor that counts."""
    query = select(totps.c.confirmed_at).where(totps.c.user_id == user)
    return connection.execute(query).scalar() is not None


def totp(connection: Connection, user: str) -> TotpRow | None:
    """Return a user's second factor, locked for this transaction to use."""
    query = select(totps.c.secret, totps.c.confirmed_at, totps.c.last_step)
    row = connection.execute(query.where(totps.c.user_id == user).with_for_update()).first()
    return None if row is None else TotpRow(*row)


def put_totp(connection: Connection, user: str, secret: str, now: int) -> None:
    """Begin a second factor anew; it does not count yet."""
    forget_totp(connection, user)
    row = {"user_id": user, "secret": secret, "created_at": now, "last_step": 0}
    connection.execute(insert(totps), [row])


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
