"""`POST /api/agents/register/`: a machine shows its token and becomes a node.

Plain Starlette and msgspec: it is the agents' door, apart from the API that people use.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import msgspec
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from fleetwire.core import limits
from fleetwire.core.errors import FleetwireError
from fleetwire.core.pins import CA_PATH
from fleetwire.core.shares import origin
from fleetwire.core.sparing import Sparing
from fleetwire.server.domain import nodes
from fleetwire.server.domain.enrolment import Keys
from fleetwire.server.domain.errors import BadEnrolmentToken, NameTaken
from fleetwire.server.durable.errors import DatabaseUnavailable, StorageFull
from fleetwire.server.store.engine import Database

PATH: Final = "/api/agents/register/"
BODY_BYTES: Final = 64 * limits.KIB

Text = Annotated[str, msgspec.Meta(max_length=1024)]


class Registration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the machine sends. Keys are base64 of 32 raw bytes."""

    token: Text
    name: Text
    signing_key: bytes
    sealing_key: bytes
    incarnation: Text
    labels: dict[str, str] = {}
    agent_version: Text = ""
    capacity: int = 16


class ServerKey(msgspec.Struct, frozen=True):
    """A public key that orders may be signed with; the agent trusts no other."""

    id: str
    key: bytes


class Registered(msgspec.Struct, frozen=True):
    """What the machine keeps. `server_time` is microseconds since 1970."""

    node: str
    name: str
    cluster: str
    server_keys: tuple[ServerKey, ...]
    server_time: int


_log = structlog.get_logger()
_registration = msgspec.json.Decoder(Registration)
_encode = msgspec.json.Encoder().encode
_STATUS: Final[dict[type[FleetwireError], int]] = {
    BadEnrolmentToken: 401,
    NameTaken: 409,
    StorageFull: 507,
    DatabaseUnavailable: 503,
}


class Enrolment:
    """The door. `keys` are the server's public keys as (id, 32 raw bytes); `ca` returns the CA's
    certificate (PEM) that machines are to pin, None where there is none.
    """

    def __init__(
        self,
        database: Database,
        *,
        cluster_id: str,
        keys: Sequence[tuple[str, bytes]],
        ids: Callable[[], str],
        clock: Callable[[], int],
        ca: Callable[[], str | None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        most = limits.AUDIT_REFUSALS_PER_MIN
        self._refusals = Sparing(most, within_s=60.0, most_of_all=10 * most)
        self._database = database
        self._cluster = cluster_id
        self._keys = tuple(ServerKey(id_, key) for id_, key in keys)
        self._ids = ids
        self._clock = clock
        self._ca = ca
        self.routes: list[BaseRoute] = [
            Route(PATH, self.register, methods=["POST"]),
            Route(CA_PATH, self.show_ca, methods=["GET"]),
        ]

    async def _record_refusal(
        self, asked: Registration, address: str | None, error: FleetwireError
    ) -> None:
        """Record it in a commit of its own, which who asked need not know has failed. Of a flood
        from one origin some are, and how many were not: strangers must not fill the disk.
        """
        left_out = self._refusals.take(origin(address), self._monotonic())
        if left_out is None:
            return
        try:
            await self._database.write(
                lambda tx: nodes.record_refusal(
                    tx,
                    asked.token,
                    name=asked.name,
                    address=address,
                    error=error,
                    left_out=left_out,
                ),
                grows=True,
            )
        except FleetwireError as failed:
            _log.warning("a refused enrolment was not recorded", error=failed.detail)

    async def show_ca(self, request: Request) -> Response:
        """Show the CA's certificate: whoever asks compares it with the fingerprint it was given."""
        del request
        pem = self._ca()
        if pem is None:
            return _problem(
                404, "no-ca", "This server has no CA to pin.", "Leave out --ca-fingerprint."
            )
        return Response(pem, media_type="application/x-pem-file")

    async def register(self, request: Request) -> Response:
        """Enrol, or say as a problem document why not."""
        try:
            body = await _body(request)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is there to read it
        if body is None:
            return _problem(
                413, "limit-exceeded", f"The body is larger than {BODY_BYTES} bytes.", "Send less."
            )
        try:
            asked = _registration.decode(body)
        except (msgspec.DecodeError, RecursionError) as error:
            return _problem(422, "bad-enrolment", f"The body cannot be read: {error}.", "")
        address = request.client.host if request.client else None
        try:
            enrolled = await self._database.write(
                lambda tx: nodes.enrol(
                    tx,
                    asked.token,
                    asked.name,
                    Keys(asked.signing_key, asked.sealing_key),
                    asked.incarnation,
                    asked.labels,
                    asked.agent_version,
                    asked.capacity,
                    address,
                    self._ids,
                ),
                grows=True,
            )
        except FleetwireError as error:
            await self._record_refusal(asked, address, error)
            status = _STATUS.get(type(error), 422)
            return _problem(status, error.code, error.detail, error.hint, error.field)
        answer = Registered(enrolled.node, enrolled.name, self._cluster, self._keys, self._clock())
        return Response(_encode(answer), 201, media_type="application/json")


async def _body(request: Request) -> bytes | None:
    """Return the body, or None where it is too large."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > BODY_BYTES:
            return None
    return bytes(body)


def _problem(status: int, code: str, detail: str, hint: str, field: str | None = None) -> Response:
    """Return an RFC 9457 problem document (docs/seams.md, 4)."""
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": "The machine was not enrolled" if code != "no-ca" else "Nothing to pin",
        "status": status,
        "detail": detail,
        "code": code,
    }
    if hint:
        document["hint"] = hint
    if field:
        document["field"] = field
    return Response(_encode(document), status, media_type="application/problem+json")
