"""`/audit`: what was done, by whom and from where; to be read, and by nobody to be changed.

A project's entries are for those who have `read-audit` there. Those of the whole system, and of
projects that are no more, are for those who have `read-system-audit`.
"""

from __future__ import annotations

import base64
import datetime as dt
from typing import Annotated, Any

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from fleetwire.core.audit import Entry, SignedCheckpoint, key_id
from fleetwire.core.envelopes import SignedKey
from fleetwire.server.api import cursor, views, write
from fleetwire.server.api.doors import Door, reach_of
from fleetwire.server.api.errors import Unprocessable
from fleetwire.server.api.params import (
    AuditQuery,
    ChainQuery,
    SystemAuditQuery,
    SystemChainQuery,
)
from fleetwire.server.api.parts import Parts, parts_of
from fleetwire.server.domain import audit, finding
from fleetwire.server.domain.audit import Filter, Found, Stretch
from fleetwire.server.domain.errors import NotFound
from fleetwire.server.store import Connection

_US = 1_000_000


async def list_(request: Request, query: Annotated[AuditQuery, Query()]) -> Response:
    """List what was done in your projects, newest first."""
    reach = reach_of(request)

    def find(connection: Connection) -> tuple[list[Found], dict[str, str]]:
        within = finding.within(connection, query.project, reach)
        return _page(connection, within, query)

    return _answer(*await parts_of(request).database.read(find), query.limit)


async def system_list(request: Request, query: Annotated[SystemAuditQuery, Query()]) -> Response:
    """List what was done to the whole system, and in projects that are no more, newest first."""

    def find(connection: Connection) -> tuple[list[Found], dict[str, str]]:
        return _page(connection, audit.ownerless(connection), query)

    return _answer(*await parts_of(request).database.read(find), query.limit)


async def chain(request: Request, query: Annotated[ChainQuery, Query()]) -> Response:
    """Show a project's chain, oldest first, with what it is verified by: from the beginning all
    checkpoints, further on those of the page.
    """
    parts, reach = parts_of(request), reach_of(request)

    def find(connection: Connection) -> tuple[str, Stretch]:
        project = finding.project_for(connection, query.project, reach)
        return project, audit.stretch(connection, project, after=query.after, limit=query.limit)

    return _chain(parts, *await parts.database.read(find), query.after)


async def system_chain(request: Request, query: Annotated[SystemChainQuery, Query()]) -> Response:
    """Show the chain of the whole system, or of a project that is no more, oldest first."""
    parts = parts_of(request)

    def find(connection: Connection) -> tuple[str, Stretch]:
        if query.chain not in audit.ownerless(connection):
            raise NotFound(
                f"There is no chain {query.chain[:80]!r} here.",
                hint="The chains of projects are at /api/v1/audit/chain.",
                field="chain",
            )
        return query.chain, audit.stretch(
            connection, query.chain, after=query.after, limit=query.limit
        )

    return _chain(parts, *await parts.database.read(find), query.after)


def _page(
    connection: Connection, within: frozenset[str], query: SystemAuditQuery
) -> tuple[list[Found], dict[str, str]]:
    return audit.page(
        connection,
        within,
        Filter(
            action=query.action,
            actor=query.actor,
            target=query.target,
            outcome=query.outcome,
            address=query.address,
            since=_moment("since", query.since),
            until=_moment("until", query.until),
        ),
        before=cursor.parse_number(query.cursor),
        limit=query.limit + 1,
    )


def _answer(found: list[Found], names: dict[str, str], limit: int) -> Response:
    def shape(one: Found) -> dict[str, Any]:
        return {"chain": one.chain, "project": names.get(one.chain), **_entry(one.entry)}

    return write.take_page(found, limit, write=shape, cursor=lambda one: cursor.after(str(one.id)))


def _chain(parts: Parts, name: str, found: Stretch, after: int) -> Response:
    if after <= 0:
        found = audit.signed_to_its_head(found, name, parts.audit_key, at=parts.clock())
    return write.answer(
        {
            "cluster": parts.audit_key.cluster,
            "chain": name,
            "head": {"number": found.head.number, "hash": found.head.hash.hex()},
            "key": _base64(parts.audit_key.public),
            "rotations": [_rotation(one) for one in parts.rotations],
            "entries": [{**_entry(one.entry), "hash": one.hash.hex()} for one in found.entries],
            "checkpoints": [_checkpoint(one) for one in found.checkpoints],
        }
    )


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "number": entry.number,
        "at": write.rfc3339(entry.at),
        "action": entry.action,
        "actor": {
            "kind": entry.actor_kind,
            "id": entry.actor,
            "name": entry.actor_name,
            "via": entry.via,
        },
        "address": entry.address,
        "target": {"kind": entry.target_kind, "id": entry.target, "name": entry.target_name},
        "outcome": entry.outcome,
        "code": entry.code,
        "detail": entry.detail,
    }


def _checkpoint(signed: SignedCheckpoint) -> dict[str, Any]:
    said = signed.checkpoint
    return {
        "number": said.number,
        "hash": said.hash,
        "at": write.rfc3339(said.at),
        "cut": said.cut,
        "key": _base64(said.key),
        "key_id": key_id(said.key),
        "signature": _base64(signed.signature),
    }


def _rotation(one: SignedKey) -> dict[str, Any]:
    return {
        "id": one.new.id,
        "key": _base64(one.new.key),
        "signed_by": one.new.signed_by,
        "issued_at": write.rfc3339(one.new.issued_at),
        "signature": _base64(one.signature),
    }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _moment(field: str, text: str | None) -> int | None:
    """Return a time in microseconds since 1970."""
    if text is None:
        return None
    try:
        moment = dt.datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError("no offset from UTC")
        return round(moment.timestamp() * _US)
    except (ValueError, OverflowError) as error:
        raise Unprocessable(
            f"{field} is no time ({error}).",
            hint="Write it as 2030-01-31T12:00:00Z.",
            field=field,
        ) from None


DOORS = [
    Door(
        "GET", "/api/v1/audit", list_, permission="read-audit", tag="audit",
        answers={200: views.Page[views.AuditEntry]}, problems=(404,),
    ),
    Door(
        "GET", "/api/v1/audit/chain", chain, permission="read-audit", tag="audit",
        answers={200: views.AuditChain}, problems=(404,),
    ),
    Door(
        "GET", "/api/v1/system/audit", system_list, permission="read-system-audit", tag="audit",
        answers={200: views.Page[views.AuditEntry]},
    ),
    Door(
        "GET", "/api/v1/system/audit/chain", system_chain, permission="read-system-audit",
        tag="audit", answers={200: views.AuditChain}, problems=(404,),
    ),
]  # fmt: skip
