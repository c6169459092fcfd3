"""Users, as a system admin manages them. Nobody deletes a user: what they did names them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from fleetwire.core.access import Forbidden
from fleetwire.core.errors import BadSpec, FleetwireError
from fleetwire.core.names import is_name
from fleetwire.server.domain import people
from fleetwire.server.domain.errors import NameTaken, NotFound
from fleetwire.server.domain.people import SYSTEM_ADMIN, USER
from fleetwire.server.domain.projects import NAME_HINT
from fleetwire.server.store import Connection
from fleetwire.server.store import people as rows
from fleetwire.server.store.engine import Tx

NO_PASSWORD: Final = ""
"""Stands for the hash of who has no password here: none has it."""


class LastAdmin(FleetwireError):
    """Without a system admin nobody could manage users any more."""

    code = "last-admin"


class UserView(msgspec.Struct, frozen=True):
    """A user, as a system admin sees it. `has_password` is false for who logs in at an OpenID
    provider only.
    """

    id: str
    name: str
    role: str
    disabled: bool
    created_at: int
    has_password: bool
    totp: bool


def create(
    tx: Tx, name: str, *, password_hash: str, is_system_admin: bool, ids: Callable[[], str]
) -> UserView:
    """Make a user, who may nothing yet in any project. Raises BadSpec, NameTaken."""
    if not is_name(name):
        raise BadSpec(f"{name[:80]!r} is not a name for a user.", hint=NAME_HINT, field="name")
    if rows.user_by_name(tx.connection, name) is not None:
        raise NameTaken(
            f"There is a user named {name!r} already.", hint="Choose another.", field="name"
        )
    id_ = ids()
    rows.insert_user(
        tx.connection,
        {
            "id": id_,
            "name": name,
            "password_hash": password_hash,
            "role": SYSTEM_ADMIN if is_system_admin else USER,
            "disabled": False,
            "created_at": tx.now,
        },
    )
    return get(tx.connection, id_)


def get(connection: Connection, word: str) -> UserView:
    """Return a user, by name or id. Raises NotFound."""
    row = rows.user_by_word(connection, word)
    if row is None:
        raise NotFound(f"There is no user {word[:80]!r}.", hint="fleetwire users lists them.")
    return _view(row)


def list_(connection: Connection, *, after: str | None, limit: int) -> list[UserView]:
    """Return users by name."""
    return [_view(row) for row in rows.list_users(connection, after=after, limit=limit)]


def change(
    tx: Tx,
    word: str,
    *,
    by: str,
    disabled: bool | None = None,
    is_system_admin: bool | None = None,
) -> UserView:
    """Disable or enable a user, or make them a system admin or none; `by` is the id of who does it.

    A disabled user's sessions end; their tokens are refused as long as they are disabled. Raises
    NotFound, LastAdmin, Forbidden.
    """
    user = get(tx.connection, word).id
    admins = rows.lock_active(tx.connection, role=SYSTEM_ADMIN, user=user)
    found = get(tx.connection, user)
    if is_system_admin and found.id == by and found.role != SYSTEM_ADMIN:
        raise Forbidden("Nobody raises their own rights.", hint="Ask a system admin.")
    lowered = disabled or is_system_admin is False
    if lowered and admins == {found.id}:
        raise LastAdmin(
            f"{found.name} is the only system admin that is not disabled.",
            hint="Make another one first: fleetwire users create NAME --system-admin.",
        )
    if disabled is not None:
        rows.change_user(tx.connection, found.id, disabled=disabled)
        if disabled:
            people.end_sessions(tx, found.id)
    if is_system_admin is not None:
        role = SYSTEM_ADMIN if is_system_admin else USER
        rows.change_user(tx.connection, found.id, role=role)
    return get(tx.connection, found.id)


def reset_password(tx: Tx, word: str, *, password_hash: str) -> UserView:
    """Give a user a new password, and end their sessions: who had the old one is out."""
    found = get(tx.connection, word)
    rows.set_password_hash(tx.connection, found.id, password_hash)
    people.end_sessions(tx, found.id)
    return get(tx.connection, found.id)


def _view(row: Any) -> UserView:  # noqa: ANN401 - a row of store.people
    return UserView(
        row["id"],
        row["name"],
        row["role"],
        row["disabled"],
        row["created_at"],
        row["password_hash"] != NO_PASSWORD,
        row["totp"] is not None,
    )
