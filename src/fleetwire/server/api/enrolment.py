"""`/enrolment-tokens`: one-time secrets that let one machine each become a node."""

from __future__ import annotations

import shlex
from typing import Annotated, Any, Final

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from fleetwire.core.audit import Target
from fleetwire.server.api import cursor, views, write
from fleetwire.server.api.doors import Door, caller_of, reach_of
from fleetwire.server.api.noting import note_of
from fleetwire.server.api.params import EnrolmentTokenParams, EnrolmentTokensQuery, ListQuery
from fleetwire.server.api.parts import parts_of
from fleetwire.server.domain import enrolment, finding
from fleetwire.server.store.engine import Tx

ENROLMENT_PREFIX: Final = "fw_enrol_"


async def create(request: Request, body: EnrolmentTokenParams) -> Response:
    """Make an enrolment token. Its text is in this answer and nowhere else."""
    parts, caller, reach = parts_of(request), caller_of(request), reach_of(request)
    secret = ENROLMENT_PREFIX + parts.secret()
    note = note_of(request)

    def make(tx: Tx) -> enrolment.EnrolmentTokenView:
        project = finding.project_for(tx.connection, body.project, reach)
        made = enrolment.create_token(
            tx,
            secret,
            labels=body.labels,
            expires_in=body.expires_in,
            by=caller.user,
            ids=parts.ids,
            name_pattern=body.name,
            network=body.network,
            approval=body.approval,
            project=project,
        )
        note.say(
            tx,
            chain=project,
            target=Target("enrolment-token", made.id),
            labels=", ".join(f"{key}={value}" for key, value in sorted(made.labels.items())),
            expires_at=write.rfc3339(made.expires_at),
            name=made.name_pattern,
            network=made.network,
            approval=made.approval,
        )
        return made

    made = await parts.database.write(make)
    pin = parts.ca_fingerprint()
    url = f"{request.url.scheme}://{request.url.netloc}"
    more = {"ca_fingerprint": pin, "command": command(url, secret, pin)}
    return write.answer({**_shape(made), "token": secret, **more}, 201)


def command(url: str, token: str, ca_fingerprint: str | None) -> str:
    """Return the line that makes a node of a machine: to be copied as it is. The token goes through
    a file, because everybody on the machine may read the arguments of a process.
    """
    pin = f" --ca-fingerprint {ca_fingerprint}" if ca_fingerprint else ""
    return (
        f"(umask 077; printf '%s\\n' {shlex.quote(token)} > enrolment-token) && "
        f"fleetwire agent --server {shlex.quote(url)}{pin} --token-file enrolment-token"
    )


async def list_(request: Request, query: Annotated[EnrolmentTokensQuery, Query()]) -> Response:
    """List the enrolment tokens, newest first, used and expired ones among them."""
    before, reach = cursor.parse_after(query.cursor), reach_of(request)
    found, last = await parts_of(request).database.read(
        lambda c: enrolment.list_tokens(
            c, cursor=before, limit=query.limit, within=finding.within(c, query.project, reach)
        )
    )
    return write.page([_shape(one) for one in found], cursor.after(last) if last else None)


async def delete(request: Request, token: str) -> Response:
    """Delete an enrolment token; a node that used it stays."""
    within, note = reach_of(request).may, note_of(request)

    def remove(tx: Tx) -> None:
        project = enrolment.delete_token(tx, token, within=within)
        note.say(tx, chain=project, target=Target("enrolment-token", token))

    await parts_of(request).database.write(remove)
    return Response(status_code=204)


def _shape(view: enrolment.EnrolmentTokenView) -> dict[str, Any]:
    return {
        "id": view.id,
        "labels": view.labels,
        "created_by": view.created_by,
        "created_at": write.rfc3339(view.created_at),
        "expires_at": write.rfc3339(view.expires_at),
        "used_at": write.at(view.used_at),
        "used_by": view.used_by,
        "name": view.name_pattern,
        "network": view.network,
        "approval": view.approval,
        "project": view.project,
    }


async def uses(request: Request, query: Annotated[ListQuery, Query()]) -> Response:
    """List what enrolment tokens were shown, taken or refused, newest first."""
    before, within = cursor.parse_number(query.cursor), reach_of(request).may
    found, last = await parts_of(request).database.read(
        lambda c: enrolment.list_uses(c, before=before, limit=query.limit, within=within)
    )
    shown = [
        {
            "at": write.rfc3339(one.at),
            "token": one.token_id,
            "node": one.node_id,
            "name": one.name,
            "address": one.address,
            "outcome": one.outcome,
        }
        for one in found
    ]
    return write.page(shown, cursor.after(str(last)) if last is not None else None)


DOORS = [
    Door(
        "POST", "/api/v1/enrolment-tokens", create, permission="manage-enrolment",
        action="enrolment-token.create", tag="enrolment", answers={201: views.NewEnrolmentToken},
    ),
    Door(
        "GET", "/api/v1/enrolment-tokens", list_, permission="manage-enrolment",
        tag="enrolment", answers={200: views.Page[views.EnrolmentToken]},
    ),
    Door(
        "GET", "/api/v1/enrolment-uses", uses, permission="manage-enrolment",
        tag="enrolment", answers={200: views.Page[views.EnrolmentUse]},
    ),
    Door(
        "DELETE", "/api/v1/enrolment-tokens/{token}", delete, permission="manage-enrolment",
        action="enrolment-token.delete", tag="enrolment", answers={204: None}, problems=(404,),
    ),
]  # fmt: skip
