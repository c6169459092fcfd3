"""`/users`: who may log in, as system admins manage them."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from fleetwire.core.audit import Target
from fleetwire.server.api import cursor, views, write
from fleetwire.server.api.doors import Door, caller_of
from fleetwire.server.api.errors import Unprocessable
from fleetwire.server.api.noting import note_of
from fleetwire.server.api.params import ListQuery, NewUserParams, PasswordParams, UserParams
from fleetwire.server.api.parts import Parts, parts_of
from fleetwire.server.domain import factors, identities, people, projects, users
from fleetwire.server.domain.users import UserView
from fleetwire.server.store import Connection
from fleetwire.server.store.engine import Tx


async def create(request: Request, body: NewUserParams) -> Response:
    """Make a user, who may nothing yet: roles are given in projects.

    Without a password one is made; it is in this answer and nowhere else.
    """
    parts = parts_of(request)
    subject, provider = body.oidc_subject, parts.oidc
    password, hashed = None, users.NO_PASSWORD
    if subject is None:
        password, hashed = await _new_password(parts, body.password)
    elif provider is None or body.password is not None:
        raise Unprocessable(
            "Who logs in at an OpenID provider has no password here, and there must be one.",
            hint="Give a password, or none and the subject at the provider.",
            field="oidc_subject",
        )

    note = note_of(request)

    def make(tx: Tx) -> UserView:
        made = users.create(
            tx,
            body.name,
            password_hash=hashed,
            is_system_admin=body.role == "admin",
            ids=parts.ids,
        )
        if subject is not None and provider is not None:
            issuer = provider.settings.issuer
            identities.link(tx, made.id, issuer=issuer, subject=subject)
        note.say(tx, target=_target(made), role=made.role, oidc=subject is not None)
        return made

    made = await parts.database.write(make)
    shown = password if body.password is None else None
    return write.answer({**_shape(made), "password": shown}, 201)


async def _new_password(parts: Parts, wanted: str | None) -> tuple[str, str]:
    """Return the password, made where none is wanted, and its hash."""
    password = parts.secret()[:24] if wanted is None else wanted
    return password, await asyncio.to_thread(parts.passwords.hash_blocking, password)


async def list_(request: Request, query: Annotated[ListQuery, Query()]) -> Response:
    """List the users by name."""
    after = cursor.parse_after(query.cursor)
    found = await parts_of(request).database.read(
        lambda c: users.list_(c, after=after, limit=query.limit + 1)
    )
    return write.take_page(
        found, query.limit, write=_shape, cursor=lambda one: cursor.after(one.name)
    )


async def show(request: Request, user: str) -> Response:
    """Show a user, by name or id, with their roles in all projects."""

    def find(connection: Connection) -> dict[str, Any]:
        found = users.get(connection, user)
        members = projects.members(connection, users=[found.id])
        return {**_shape(found), "projects": [write.member(one) for one in members]}

    return write.answer(await parts_of(request).database.read(find))


async def change(request: Request, user: str, body: UserParams) -> Response:
    """Disable or enable a user, or make them a system admin or none.

    What a disabled user has open ends within 5 seconds.
    """
    parts, caller = parts_of(request), caller_of(request)
    is_system_admin = None if body.role is None else body.role == "admin"
    note = note_of(request)

    def alter(tx: Tx) -> UserView:
        found = users.change(
            tx, user, by=caller.user, disabled=body.disabled, is_system_admin=is_system_admin
        )
        note.say(tx, target=_target(found), disabled=body.disabled, role=body.role)
        return found

    found = await parts.database.write(alter)
    parts.auth.forget(found.id)
    return write.answer(_shape(found))


async def reset_password(request: Request, user: str, body: PasswordParams) -> Response:
    """Give a user a new password, and end their logins.

    Without a password one is made; it is in this answer and nowhere else.
    """
    parts = parts_of(request)
    password, hashed = await _new_password(parts, body.password)
    note = note_of(request)

    def reset(tx: Tx) -> UserView:
        found = users.reset_password(tx, user, password_hash=hashed)
        note.say(tx, target=_target(found))
        return found

    found = await parts.database.write(reset)
    parts.auth.forget(found.id)
    shown = password if body.password is None else None
    return write.answer({**_shape(found), "password": shown})


async def end_totp(request: Request, user: str) -> Response:
    """End the second factor of a user who has lost it; their logins end as well."""
    parts, note = parts_of(request), note_of(request)

    def end(tx: Tx) -> str:
        found = users.get(tx.connection, user)
        factors.end(tx, found.id)
        people.end_sessions(tx, found.id)
        note.say(tx, target=_target(found))
        return found.id

    parts.auth.forget(await parts.database.write(end))
    return Response(status_code=204)


def _target(view: UserView) -> Target:
    return Target("user", view.id, view.name)


def _shape(view: UserView) -> dict[str, Any]:
    return {
        "id": view.id,
        "name": view.name,
        "role": view.role,
        "disabled": view.disabled,
        "created_at": write.rfc3339(view.created_at),
        "has_password": view.has_password,
        "totp": view.totp,
    }


DOORS = [
    Door(
        "POST", "/api/v1/users", create, permission="manage-users",
        action="user.create", tag="people", answers={201: views.NewUser}, problems=(409,),
    ),
    Door(
        "GET", "/api/v1/users", list_, permission="manage-users", tag="people",
        answers={200: views.Page[views.UserInList]},
    ),
    Door(
        "GET", "/api/v1/users/{user}", show, permission="manage-users", tag="people",
        answers={200: views.UserWithRoles}, problems=(404,),
    ),
    Door(
        "PATCH", "/api/v1/users/{user}", change, permission="manage-users",
        action="user.change", tag="people", answers={200: views.UserInList}, problems=(404, 409),
    ),
    Door(
        "POST", "/api/v1/users/{user}/password", reset_password, permission="manage-users",
        action="user.password", tag="people", answers={200: views.NewUser}, problems=(404,),
    ),
    Door(
        "DELETE", "/api/v1/users/{user}/totp", end_totp, permission="manage-users",
        action="user.totp-end", tag="people", answers={204: None}, problems=(404,),
    ),
]  # fmt: skip
