"""Users, logins and API tokens: who is calling.

Secrets are made by the caller and arrive here as their SHA-256: what is stored cannot be used to
log in. Passwords arrive as argon2id hashes (`server.api.passwords` makes and checks them, off the
event loop and outside of any transaction).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Final, Literal

import msgspec

from fleetwire.core import limits
from fleetwire.core.errors import BadSpec, LimitExceeded
from fleetwire.server.domain.errors import NotFound
from fleetwire.server.store import Connection
from fleetwire.server.store import people as rows
from fleetwire.server.store.engine import Tx

SESSION_S: Final = limits.SESSION_S
TOKEN_DEFAULT_S: Final = limits.TOKEN_DEFAULT_S
TOKEN_LONGEST_S: Final = limits.TOKEN_LONGEST_S
TOKENS_PER_USER: Final = limits.TOKENS_PER_USER
TOKEN_NAME_CHARS: Final = limits.NAME_CHARS
FIRST_ADMIN: Final = "admin"

_US = 1_000_000


class Caller(msgspec.Struct, frozen=True):
    """Who makes a request. `credential` is the token's id or the session's hash; the times are
    microseconds since 1970.
    """

    user: str
    name: str
    role: str
    via: Literal["cookie", "token"]
    credential: str
    expires_at: int | None


class Account(msgspec.Struct, frozen=True):
    """A user as login needs it."""

    id: str
    name: str
    role: str
    password_hash: str
    disabled: bool


class TokenView(msgspec.Struct, frozen=True):
    """An API token, without its secret."""

    id: str
    name: str
    created_at: int
    expires_at: int | None
    last_used_at: int | None


def digest(secret: str) -> str:
    """Return the SHA-256 under which a random secret is stored.

    No salt and no stretching: the secret has 256 random bits, there is nothing to guess.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def has_users(connection: Connection) -> bool:
    """Tell whether the first admin has been made."""
    return rows.count_users(connection) > 0


def create_first_admin(tx: Tx, *, ids: Callable[[], str], password_hash: str) -> bool:
    """Make the user `admin` unless there is any user; tell whether it was made."""
    if rows.count_users(tx.connection) > 0:
        return False
    rows.insert_user(
        tx.connection,
        {
            "id": ids(),
            "name": FIRST_ADMIN,
            "password_hash": password_hash,
            "role": "admin",
            "disabled": False,
            "created_at": tx.now,
        },
    )
    return True


def account(connection: Connection, name: str) -> Account | None:
    """Return the user of this name."""
    row = rows.user_by_name(connection, name)
    if row is None:
        return None
    return Account(row["id"], row["name"], row["role"], row["password_hash"], row["disabled"])


def set_password(tx: Tx, user: str, *, password_hash: str) -> None:
    """Replace a user's password hash (also when its parameters have become stronger)."""
    rows.set_password_hash(tx.connection, user, password_hash)


def start_session(tx: Tx, user: str, *, secret: str) -> int:
    """Start a session for `secret`'s digest; return when it expires."""
    expires_at = tx.now + SESSION_S * _US
    rows.delete_sessions_until(tx.connection, tx.now)
    rows.insert_session(
        tx.connection,
        {"hash": secret, "user_id": user, "created_at": tx.now, "expires_at": expires_at},
    )
    return expires_at


def end_session(tx: Tx, *, secret: str) -> None:
    """End the session of this digest."""
    rows.delete_session(tx.connection, secret)


def caller_by_session(connection: Connection, secret: str, now: int) -> Caller | None:
    """Return who has the session of this digest, if it may be used at `now`."""
    row = rows.session_user(connection, secret, now)
    if row is None:
        return None
    return Caller(row["id"], row["name"], row["role"], "cookie", secret, row["expires_at"])


def caller_by_token(connection: Connection, secret: str, now: int) -> Caller | None:
    """Return who has the API token of this digest, if it may be used at `now`."""
    row = rows.token_user(connection, secret, now)
    if row is None:
        return None
    return Caller(row["id"], row["name"], row["role"], "token", row["token"], row["expires_at"])


def create_token(  # each argument is one column
    tx: Tx,
    user: str,
    *,
    ids: Callable[[], str],
    name: str,
    secret: str,
    expires_in: float | None = None,
) -> TokenView:
    """Store an API token of `user` for `secret`'s digest. `expires_in` is seconds."""
    if not name.strip() or len(name) > TOKEN_NAME_CHARS or not name.isprintable():
        raise BadSpec(
            "The token's name is empty, too long or has unprintable characters.",
            hint=f"Use 1 to {TOKEN_NAME_CHARS} printable characters that say what it is for.",
            field="name",
        )
    lasts = TOKEN_DEFAULT_S if expires_in is None else expires_in
    if not 0 < lasts <= TOKEN_LONGEST_S:
        raise BadSpec(
            f"expires_in is {lasts:g} seconds.",
            hint=f"Use more than 0 to {TOKEN_LONGEST_S} seconds.",
            field="expires_in",
        )
    if rows.count_tokens(tx.connection, user) >= TOKENS_PER_USER:
        raise LimitExceeded(
            f"There are {TOKENS_PER_USER} tokens already.", hint="Delete some that are not used."
        )
    view = TokenView(ids(), name, tx.now, tx.now + round(lasts * _US), None)
    rows.insert_token(
        tx.connection,
        {
            "id": view.id,
            "user_id": user,
            "name": name,
            "hash": secret,
            "created_at": view.created_at,
            "expires_at": view.expires_at,
            "last_used_at": None,
        },
    )
    return view


def list_tokens(
    connection: Connection, user: str, *, before: str | None, limit: int
) -> list[TokenView]:
    """Return a user's tokens, newest first."""
    found = rows.list_tokens(connection, user, before=before, limit=limit)
    return [
        TokenView(row["id"], row["name"], row["created_at"], row["expires_at"], row["last_used_at"])
        for row in found
    ]


def delete_token(tx: Tx, user: str, token: str) -> None:
    """Delete one of a user's tokens, or raise NotFound."""
    if not rows.delete_token(tx.connection, user, token):
        raise NotFound(f"You have no token {token[:64]!r}.", hint="fleetwire tokens lists yours.")


def note_used(tx: Tx, used: Mapping[str, int]) -> None:
    """Record when tokens (by id) were last used."""
    rows.set_tokens_used(tx.connection, used)
