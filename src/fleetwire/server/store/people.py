"""Rows of users, sessions and API tokens. Secrets come and go as SHA-256 (tables, above)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy
from sqlalchemy import (
    Connection,
    RowMapping,
    and_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from fleetwire.server.store.tables import sessions, tokens, totps, users

_CALLER = (users.c.id, users.c.name, users.c.role)


def count_users(connection: Connection) -> int:
    """Return how many users there are."""
    return int(connection.execute(select(func.count()).select_from(users)).scalar_one())


def insert_user(connection: Connection, row: Mapping[str, Any]) -> None:
    """Store a user."""
    connection.execute(insert(users), [dict(row)])


def user_by_name(connection: Connection, name: str) -> RowMapping | None:
    """Return a user's row."""
    return connection.execute(_USER_BY_NAME, {"name": name}).mappings().first()


def lock_user(connection: Connection, user: str) -> RowMapping | None:
    """Return a user's row, locked: another transaction that locks or changes it waits."""
    query = select(users).where(users.c.id == user).with_for_update(key_share=True)
    return connection.execute(query).mappings().first()


def user_by_word(connection: Connection, word: str) -> RowMapping | None:
    """Return the user of this id or name, with `totp` (not None where a second factor counts)."""
    query = _USERS.where(or_(users.c.id == word, users.c.name == word))
    found = list(connection.execute(query).mappings())
    return max(found, key=lambda row: bool(row["id"] == word), default=None)


def list_users(connection: Connection, *, after: str | None, limit: int) -> list[RowMapping]:
    """Return users by name, as `user_by_word` does."""
    query = _USERS.order_by(users.c.name).limit(limit)
    if after is not None:
        query = query.where(users.c.name > after)
    return list(connection.execute(query).mappings())


def change_user(connection: Connection, user: str, **values: object) -> None:
    """Set columns of a user."""
    connection.execute(update(users).where(users.c.id == user).values(**values))


def lock_active(connection: Connection, *, role: str, user: str) -> set[str]:
    """Lock a user, and all of this role who are not disabled; return the ids of the latter.

    In the order of the ids: of two that do this at once only one waits.
    """
    is_active = and_(users.c.role == role, users.c.disabled.is_(sqlalchemy.false()))
    query = (
        select(users.c.id, users.c.role, users.c.disabled)
        .where(or_(is_active, users.c.id == user))
        .order_by(users.c.id)
        .with_for_update(key_share=True)
    )
    found = connection.execute(query).all()
    return {id_ for id_, its, is_disabled in found if its == role and not is_disabled}


def set_password_hash(connection: Connection, user: str, password_hash: str) -> None:
    """Replace a user's password hash."""
    connection.execute(update(users).where(users.c.id == user).values(password_hash=password_hash))


def insert_session(connection: Connection, row: Mapping[str, Any]) -> None:
    """Store a session."""
    connection.execute(insert(sessions), [dict(row)])


def delete_session(connection: Connection, digest: str) -> None:
    """Forget a session; no error when it is not there."""
    connection.execute(delete(sessions).where(sessions.c.hash == digest))


def delete_sessions_until(connection: Connection, now: int) -> int:
    """Forget the sessions that have expired; return how many."""
    return connection.execute(delete(sessions).where(sessions.c.expires_at <= now)).rowcount


def session_user(connection: Connection, digest: str, now: int) -> RowMapping | None:
    """Return id, name, role and the session's expires_at, if both may be used now."""
    return connection.execute(_SESSION_USER, {"hash": digest, "now": now}).mappings().first()


def list_sessions(connection: Connection, user: str) -> list[RowMapping]:
    """Return a user's sessions, newest first."""
    query = select(sessions).where(sessions.c.user_id == user)
    query = query.order_by(sessions.c.created_at.desc(), sessions.c.hash)
    return list(connection.execute(query).mappings())


def insert_token(connection: Connection, row: Mapping[str, Any]) -> None:
    """Store an API token."""
    connection.execute(insert(tokens), [dict(row)])


def count_tokens(connection: Connection, user: str) -> int:
    """Return how many tokens a user has, expired ones among them."""
    query = select(func.count()).select_from(tokens).where(tokens.c.user_id == user)
    return int(connection.execute(query).scalar_one())


def list_tokens(
    connection: Connection, user: str, *, before: str | None, limit: int
) -> list[RowMapping]:
    """Return a user's tokens, newest first, at most `limit`, with ids below `before`."""
    query = select(tokens).where(tokens.c.user_id == user)
    if before is not None:
        query = query.where(tokens.c.id < before)
    query = query.order_by(tokens.c.id.desc()).limit(limit)
    return list(connection.execute(query).mappings())


def delete_token(connection: Connection, user: str, token: str) -> bool:
    """Forget one of a user's tokens; tell whether it was there."""
    query = delete(tokens).where(tokens.c.id == token, tokens.c.user_id == user)
    return connection.execute(query).rowcount == 1


def token_user(connection: Connection, digest: str, now: int) -> RowMapping | None:
    """Return id, name, role, the token's id as `token`, expires_at and scope, if both may be
    used now.
    """
    return connection.execute(_TOKEN_USER, {"hash": digest, "now": now}).mappings().first()


def set_tokens_used(connection: Connection, used: Mapping[str, int]) -> None:
    """Record when tokens were last used; a token deleted meanwhile is passed over."""
    if used:
        connection.execute(_USED, [{"token": key, "at": at} for key, at in used.items()])


_USERS = select(users, totps.c.confirmed_at.label("totp")).select_from(
    users.outerjoin(totps, totps.c.user_id == users.c.id)
)
# Built once: constructing a statement costs more than running it.
_USER_BY_NAME = select(users).where(users.c.name == bindparam("name"))
_SESSION_USER = (
    select(*_CALLER, sessions.c.expires_at)
    .join(users, users.c.id == sessions.c.user_id)
    .where(
        sessions.c.hash == bindparam("hash"),
        sessions.c.expires_at > bindparam("now"),
        users.c.disabled.is_(sqlalchemy.false()),
    )
)
_TOKEN_USER = (
    select(
        *_CALLER,
        tokens.c.id.label("token"),
        tokens.c.expires_at,
        tokens.c.project_id,
        tokens.c.permissions,
    )
    .join(users, users.c.id == tokens.c.user_id)
    .where(
        tokens.c.hash == bindparam("hash"),
        or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > bindparam("now")),
        users.c.disabled.is_(sqlalchemy.false()),
    )
)
_USED = update(tokens).where(tokens.c.id == bindparam("token")).values(last_used_at=bindparam("at"))
