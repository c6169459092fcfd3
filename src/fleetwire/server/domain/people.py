"""Users, logins and API tokens: who is calling.

Secrets are made by the caller and arrive here as their SHA-256: what is stored cannot be used to
log in. Passwords arrive as argon2id hashes (`server.api.passwords` makes and checks them, off the
event loop and outside of any transaction).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, NamedTuple

import msgspec

from fleetwire.core import access, limits
from fleetwire.core.access import Reach, Rights, Scope
from fleetwire.core.errors import BadSpec, LimitExceeded
from fleetwire.server.domain.errors import NotFound
from fleetwire.server.store import Connection, projects
from fleetwire.server.store import people as rows
from fleetwire.server.store.engine import Tx

SESSION_S: Final = limits.SESSION_S
TOKEN_DEFAULT_S: Final = limits.TOKEN_DEFAULT_S
TOKEN_LONGEST_S: Final = limits.TOKEN_LONGEST_S
TOKENS_PER_USER: Final = limits.TOKENS_PER_USER
TOKEN_NAME_CHARS: Final = limits.NAME_CHARS
FIRST_ADMIN: Final = "admin"
SYSTEM_ADMIN: Final = "admin"
"""The role of a user who is a system admin; every other user's is `USER`."""

USER: Final = "user"

_US = 1_000_000
_permissions = msgspec.json.Decoder(list[str])


class Caller(msgspec.Struct, frozen=True):
    """Who makes a request, and what they may. `credential` is the token's id or the session's
    hash, `digest` the hash of what was shown; the times are microseconds since 1970.
    """

    user: str
    name: str
    role: str
    via: Literal["cookie", "token"]
    credential: str
    expires_at: int | None
    rights: Rights
    digest: str
    reaches: dict[str, Reach] = msgspec.field(default_factory=dict)
    """How far permissions go, as far as it was asked: a caller is known for a few seconds, and
    makes many requests in them."""


class Account(msgspec.Struct, frozen=True):
    """A user as login needs it."""

    id: str
    name: str
    role: str
    password_hash: str
    disabled: bool


class TokenView(msgspec.Struct, frozen=True):
    """An API token, without its secret. It is for one project where `project` (a name) is not
    None, for these permissions where `permissions` is not.
    """

    id: str
    name: str
    created_at: int
    expires_at: int | None
    last_used_at: int | None
    project: str | None
    permissions: tuple[str, ...] | None


class SessionView(msgspec.Struct, frozen=True):
    """A login, as its owner sees it. `hash` is what tells whether it is the one in use."""

    id: str
    hash: str
    created_at: int
    expires_at: int
    address: str | None
    browser: str | None


def digest(secret: str) -> str:
    """Return the SHA-256 under which a random secret is stored.

    No salt and no stretching: the secret has 256 random bits, there is nothing to guess.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def has_users(connection: Connection) -> bool:
    """Tell whether the first admin has been made."""
    return rows.count_users(connection) > 0


def create_first_admin(tx: Tx, *, ids: Callable[[], str], password_hash: str) -> bool:
    """Make the user `admin` unless there is any user; tell whether it was made.

    It is a system admin, and the founder of the project `default`.
    """
    if rows.count_users(tx.connection) > 0:
        return False
    user = ids()
    rows.insert_user(
        tx.connection,
        {
            "id": user,
            "name": FIRST_ADMIN,
            "password_hash": password_hash,
            "role": SYSTEM_ADMIN,
            "disabled": False,
            "created_at": tx.now,
        },
    )
    projects.set_created_at(tx.connection, access.DEFAULT_PROJECT, tx.now)
    projects.set_roles(tx.connection, user, access.DEFAULT_PROJECT, access.FOUNDER)
    return True


def account(connection: Connection, name: str) -> Account | None:
    """Return the user of this name."""
    row = rows.user_by_name(connection, name)
    if row is None:
        return None
    return _account(row)


def account_now(tx: Tx, user: str) -> Account:
    """Return the user of this id as they are now, and stay so until the commit.

    Between reading an account and proving who it is there is time to change it. What proof began
    begins in one transaction with this look: who changes the account meanwhile has either done
    so already, and it is seen here, or waits, and ends what began (`end_sessions`).
    """
    row = rows.lock_user(tx.connection, user)
    if row is None:
        raise AssertionError("nobody deletes a user")
    return _account(row)


def _account(row: Mapping[Any, Any]) -> Account:
    return Account(row["id"], row["name"], row["role"], row["password_hash"], row["disabled"])


def set_password(tx: Tx, user: str, *, password_hash: str) -> None:
    """Replace a user's password hash."""
    rows.set_password_hash(tx.connection, user, password_hash)


class Place(NamedTuple):
    """Where a login comes from: a network address, and what its browser calls itself."""

    address: str = ""
    browser: str = ""


NOWHERE: Final = Place()
EVERYTHING: Final = Scope()


def start_session(
    tx: Tx, user: str, *, secret: str, ids: Callable[[], str], place: Place = NOWHERE
) -> int:
    """Start a session for `secret`'s digest; return when it expires. The user's oldest one ends
    where there would be more than `SESSIONS_PER_USER`.
    """
    expires_at = tx.now + SESSION_S * _US
    rows.delete_sessions_until(tx.connection, tx.now)
    for old in rows.list_sessions(tx.connection, user)[limits.SESSIONS_PER_USER - 1 :]:
        rows.delete_session(tx.connection, old["hash"])
    rows.insert_session(
        tx.connection,
        {
            "hash": secret,
            "user_id": user,
            "created_at": tx.now,
            "expires_at": expires_at,
            "id": ids(),
            "address": _shown(place.address, 64),
            "browser": _shown(place.browser, 256),
        },
    )
    return expires_at


def list_sessions(connection: Connection, user: str, now: int) -> list[SessionView]:
    """Return a user's logins that may still be used, newest first."""
    return [
        SessionView(
            row["id"] or row["hash"][:36],  # begun by an older server
            row["hash"],
            row["created_at"],
            row["expires_at"],
            row["address"],
            row["browser"],
        )
        for row in rows.list_sessions(connection, user)
        if row["expires_at"] > now
    ]


def end_sessions(tx: Tx, user: str, *, but: str | None = None) -> None:
    """End all sessions of a user, but the one of this digest; one that is about to begin is
    either among them or sees what the caller has changed (`account_now`).
    """
    rows.lock_user(tx.connection, user)
    for row in rows.list_sessions(tx.connection, user):
        if row["hash"] != but:
            rows.delete_session(tx.connection, row["hash"])


def end_session_named(tx: Tx, user: str, session: str) -> str:
    """End the session of this id, of this user; return its digest. Raises NotFound."""
    for one in list_sessions(tx.connection, user, tx.now):
        if one.id == session:
            rows.delete_session(tx.connection, one.hash)
            return one.hash
    raise NotFound(f"You have no session {session[:64]!r}.", hint="It may have ended.")


def _shown(text: str, most: int) -> str:
    """Return a text of a stranger's as lists may show it."""
    return "".join(char if char.isprintable() else "?" for char in text[:most])


def end_session(tx: Tx, *, secret: str) -> None:
    """End the session of this digest."""
    rows.delete_session(tx.connection, secret)


def caller_by_session(connection: Connection, secret: str, now: int) -> Caller | None:
    """Return who has the session of this digest, if it may be used at `now`."""
    row = rows.session_user(connection, secret, now)
    if row is None:
        return None
    rights = rights_of(connection, row["id"], row["role"])
    return Caller(
        row["id"], row["name"], row["role"], "cookie", secret, row["expires_at"], rights, secret
    )


def caller_by_token(connection: Connection, secret: str, now: int) -> Caller | None:
    """Return who has the API token of this digest, if it may be used at `now`."""
    row = rows.token_user(connection, secret, now)
    if row is None:
        return None
    scope = Scope(row["project_id"], _read_permissions(row["permissions"]))
    rights = rights_of(connection, row["id"], row["role"], scope)
    return Caller(
        row["id"],
        row["name"],
        row["role"],
        "token",
        row["token"],
        row["expires_at"],
        rights,
        secret,
    )


def rights_of(connection: Connection, user: str, role: str, scope: Scope | None = None) -> Rights:
    """Return what a user may, or what a token of theirs with this scope may."""
    roles = projects.roles_of(connection, user)
    return Rights(is_system_admin=role == SYSTEM_ADMIN, roles=roles, scope=scope)


def _read_permissions(text: str | None) -> frozenset[str] | None:
    return None if text is None else frozenset(_permissions.decode(text))


def create_token(  # each argument is one column
    tx: Tx,
    user: str,
    *,
    ids: Callable[[], str],
    name: str,
    secret: str,
    expires_in: float | None = None,
    scope: Scope = EVERYTHING,
    not_after: int | None = None,
) -> TokenView:
    """Store an API token of `user` for `secret`'s digest. `expires_in` is seconds; with
    `not_after` it lasts no longer than that (microseconds since 1970).
    """
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
    expires_at = tx.now + round(lasts * _US)
    if not_after is not None:
        expires_at = min(expires_at, not_after)
    narrowed = None if scope.permissions is None else tuple(sorted(scope.permissions))
    if narrowed is not None and not scope.permissions <= access.PERMISSIONS:  # type: ignore[operator]
        raise BadSpec(
            f"There is no permission {min(set(narrowed) - access.PERMISSIONS)[:80]!r}.",
            hint="docs/access.md lists them.",
            field="permissions",
        )
    names = projects.names(tx.connection, [scope.project] if scope.project else [])
    project = names[scope.project] if scope.project else None
    view = TokenView(ids(), name, tx.now, expires_at, None, project, narrowed)
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
            "project_id": scope.project,
            "permissions": None if narrowed is None else msgspec.json.encode(narrowed).decode(),
        },
    )
    return view


def list_tokens(
    connection: Connection, user: str, *, before: str | None, limit: int
) -> list[TokenView]:
    """Return a user's tokens, newest first."""
    found = rows.list_tokens(connection, user, before=before, limit=limit)
    names = projects.names(connection, {row["project_id"] for row in found} - {None})
    return [
        TokenView(
            row["id"],
            row["name"],
            row["created_at"],
            row["expires_at"],
            row["last_used_at"],
            names.get(row["project_id"]),
            None if row["permissions"] is None else tuple(_permissions.decode(row["permissions"])),
        )
        for row in found
    ]


def delete_token(tx: Tx, user: str, token: str) -> None:
    """Delete one of a user's tokens, or raise NotFound."""
    if not rows.delete_token(tx.connection, user, token):
        raise NotFound(f"You have no token {token[:64]!r}.", hint="fleetwire tokens lists yours.")


def note_used(tx: Tx, used: Mapping[str, int]) -> None:
    """Record when tokens (by id) were last used."""
    rows.set_tokens_used(tx.connection, used)
