"""`/secrets`: set, list, delete. No route returns a value, and none will."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from fleetwire.core import access
from fleetwire.core.access import Forbidden
from fleetwire.core.audit import Target
from fleetwire.core.specs import Spec, secrets_of
from fleetwire.server.api import cursor, views, write
from fleetwire.server.api.doors import Door, caller_of, reach_of
from fleetwire.server.api.errors import Unprocessable
from fleetwire.server.api.noting import note_of
from fleetwire.server.api.params import SecretParams, SecretQuery, SecretsQuery
from fleetwire.server.api.parts import parts_of
from fleetwire.server.domain import finding, secrets
from fleetwire.server.domain.people import Caller
from fleetwire.server.domain.secrets import SecretRow
from fleetwire.server.store.engine import Tx


async def put(request: Request, secret: str, body: SecretParams) -> Response:
    """Set a secret: a new one, or a new value of one that is there.

    Nobody can read it again; runs name it, and their tasks get it.
    """
    parts, caller, reach = parts_of(request), caller_of(request), reach_of(request)
    value = _value(body)
    note = note_of(request)

    def put_it(tx: Tx) -> tuple[SecretRow, bool]:
        project = finding.project_for(tx.connection, body.project, reach)
        note.about(chain=project)
        made, is_new = secrets.put(
            tx, project, secret, value, by=caller.user, sealing=parts.sealing
        )
        note.say(tx, target=Target("secret", name=made.name), version=made.version)
        return made, is_new

    made, is_new = await parts.database.write(put_it, grows=True)
    return write.answer(_shape(made), 201 if is_new else 200)


async def list_(request: Request, query: Annotated[SecretsQuery, Query()]) -> Response:
    """List the secrets by name, without their values."""
    after, reach = cursor.parse_after(query.cursor), reach_of(request)
    found = await parts_of(request).database.read(
        lambda c: secrets.page(
            c, finding.within(c, query.project, reach), after=after, limit=query.limit + 1
        )
    )
    return write.take_page(
        found, query.limit, write=_shape, cursor=lambda one: cursor.after(secrets.place(one))
    )


async def delete(request: Request, secret: str, query: Annotated[SecretQuery, Query()]) -> Response:
    """Delete a secret. Runs that name it are refused from then on."""
    reach, note = reach_of(request), note_of(request)

    def remove(tx: Tx) -> None:
        project = finding.project_for(tx.connection, query.project, reach)
        note.about(chain=project)
        secrets.delete(tx, project, secret)
        note.say(tx, target=Target("secret", name=secret))

    await parts_of(request).database.write(remove)
    return Response(status_code=204)


def check_use(caller: Caller, spec: Spec, project: str) -> None:
    """Raise Forbidden unless the caller may use secrets of the project, if the spec names any."""
    if secrets_of(spec) and not access.allowed(caller.rights, "use-secret", project):
        raise Forbidden(
            "The run names secrets: that takes the permission 'use-secret' in its project.",
            hint="Ask an admin of the project.",
            field="spec.secrets",
            project=project,
        )


def _value(body: SecretParams) -> bytes:
    if (body.value is None) == (body.value_base64 is None):
        raise Unprocessable(
            "A secret needs exactly one of value and value_base64.",
            hint="Text goes into value; anything else, in base64, into value_base64.",
            field="value",
        )
    try:
        if body.value is not None:
            return body.value.encode("utf-8")
        return base64.b64decode(body.value_base64 or "", validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError):
        field = "value" if body.value is not None else "value_base64"
        raise Unprocessable(
            f"{field} cannot be read.", hint="Send UTF-8, or base64.", field=field
        ) from None


def _shape(row: SecretRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "project": row.project,
        "version": row.version,
        "created_at": write.rfc3339(row.created_at),
        "updated_at": write.rfc3339(row.updated_at),
        "updated_by": row.updated_by,
        "last_used_at": write.at(row.last_used_at),
    }


DOORS = [
    Door(
        "PUT", "/api/v1/secrets/{secret}", put, permission="manage-secrets",
        action="secret.set", tag="secrets", answers={200: views.Secret, 201: views.Secret},
    ),
    Door(
        "GET", "/api/v1/secrets", list_, permission="read", tag="secrets",
        answers={200: views.Page[views.Secret]},
    ),
    Door(
        "DELETE", "/api/v1/secrets/{secret}", delete, permission="manage-secrets",
        action="secret.delete", tag="secrets", answers={204: None}, problems=(404,),
    ),
]  # fmt: skip
