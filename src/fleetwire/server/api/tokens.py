"""`/tokens`: the API tokens of the one who asks."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from fleetwire.core import access
from fleetwire.core.access import Scope
from fleetwire.core.audit import Target
from fleetwire.server.api import cursor, views, write
from fleetwire.server.api.auth import TOKEN_PREFIX
from fleetwire.server.api.doors import Door, caller_of
from fleetwire.server.api.noting import note_of
from fleetwire.server.api.params import ListQuery, TokenParams
from fleetwire.server.api.parts import parts_of
from fleetwire.server.domain import finding, people
from fleetwire.server.domain.people import TokenView
from fleetwire.server.store.engine import Tx


async def create(request: Request, body: TokenParams) -> Response:
    """Make an API token. Its text is in this answer and nowhere else.

    With `project` and `permissions` it is narrowed to those; a token that is narrowed itself
    makes none that is wider or lasts longer.
    """
    parts, caller = parts_of(request), caller_of(request)
    secret = TOKEN_PREFIX + parts.secret()
    known = access.reach(caller.rights, "read")
    note = note_of(request)
    is_narrowed = caller.rights.scope not in {None, Scope()}

    def make(tx: Tx) -> TokenView:
        project = None
        if body.project is not None:
            project = finding.known_project(tx.connection, body.project, known).id
        permissions = None if body.permissions is None else frozenset(body.permissions)
        made = people.create_token(
            tx,
            caller.user,
            ids=parts.ids,
            name=body.name,
            secret=people.digest(secret),
            expires_in=body.expires_in,
            scope=access.narrower(caller.rights, Scope(project, permissions)),
            not_after=caller.expires_at if is_narrowed else None,
        )
        note.say(
            tx,
            target=Target("token", made.id, made.name),
            project=made.project,
            permissions=None if made.permissions is None else ", ".join(made.permissions),
            expires_at=None if made.expires_at is None else write.rfc3339(made.expires_at),
        )
        return made

    made = await parts.database.write(make)
    return write.answer({**write.token(made), "token": secret}, 201)


async def list_(request: Request, query: Annotated[ListQuery, Query()]) -> Response:
    """List your API tokens, newest first."""
    parts, caller = parts_of(request), caller_of(request)
    before = cursor.parse_after(query.cursor)
    found = await parts.database.read(
        lambda c: people.list_tokens(c, caller.user, before=before, limit=query.limit + 1)
    )
    return write.take_page(
        found, query.limit, write=write.token, cursor=lambda one: cursor.after(one.id)
    )


async def delete(request: Request, token: str) -> Response:
    """Delete one of your API tokens; it is refused from then on."""
    parts, caller = parts_of(request), caller_of(request)
    note = note_of(request)

    def end(tx: Tx) -> None:
        people.delete_token(tx, caller.user, token)
        note.say(tx, target=Target("token", token))

    await parts.database.write(end)
    parts.auth.forget(token)
    return Response(status_code=204)


DOORS = [
    Door(
        "POST", "/api/v1/tokens", create, permission="manage-own-tokens",
        action="token.create", tag="people", answers={201: views.NewToken},
    ),
    Door(
        "GET", "/api/v1/tokens", list_, permission="manage-own-tokens", tag="people",
        answers={200: views.Page[views.Token]},
    ),
    Door(
        "DELETE", "/api/v1/tokens/{token}", delete, permission="manage-own-tokens",
        action="token.delete", tag="people", answers={204: None}, problems=(404,),
    ),
]  # fmt: skip
