"""Who may pass: every door of the table, without a credential, with wrong ones, with right ones."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import pytest
from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fleetwire.core.access import BY_LOGIN_ONLY
from fleetwire.server.api import asgi, doors
from fleetwire.server.api.doors import OPEN, Door, Unguarded
from fleetwire.server.api.params import ListQuery
from fleetwire.server.api.routes import DOORS

if TYPE_CHECKING:
    from tests.server.api.conftest import Server

GUARDED = [door for door in DOORS if door.permission != OPEN]
NAMES = [f"{door.method} {door.path}" for door in GUARDED]


def path_of(door: Door) -> str:
    return re.sub(r"{[^}]+}", "0190b7f0-1c2d-7abc-8def-0123456789ab", door.path)


def test_the_open_doors_are_these_and_no_others() -> None:
    opened = {f"{door.method} {door.path}" for door in DOORS if door.permission == OPEN}
    assert opened == {
        "POST /api/v1/login",
        "GET /api/v1/login",
        "GET /api/v1/login/oidc",
        "GET /api/v1/login/oidc/callback",
        "GET /healthz",
        "GET /readyz",
    }
    assert (
        opened
        | {
            "GET /openapi.json",
            "GET /docs",
            "GET /{path:path}",
            "/api/agents/register/",
            "/api/agents/ca",
            "/ws/agent/{node}",
        }
        == asgi.OPEN_ROUTES
    )


@pytest.mark.parametrize("door", GUARDED, ids=NAMES)
def test_nobody_passes_without_a_credential(server: Server, door: Door) -> None:
    answer = server.call(door.method, path_of(door), token=None)
    assert (answer.status, answer.code) == (401, "unauthenticated")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("door", GUARDED, ids=NAMES)
@pytest.mark.parametrize(
    "credential",
    [
        {"Authorization": "Bearer fw_" + "x" * 43},
        {"Authorization": "Bearer " + "x" * 43},
        {"Authorization": "Basic YWRtaW46YWRtaW4="},
        {"Authorization": "Bearer fw_" + "x" * 5000},
        {"Authorization": ""},
        {"Cookie": "fleetwire_session=" + "x" * 43, "Origin": "SELF"},
    ],
    ids=["unknown token", "no token", "basic", "long", "empty", "unknown cookie"],
)
def test_nobody_passes_with_a_wrong_credential(
    server: Server, door: Door, credential: dict[str, str]
) -> None:
    headers = {
        name: server.origin if value == "SELF" else value for name, value in credential.items()
    }
    answer = server.call(door.method, path_of(door), headers=headers, token=None)
    assert (answer.status, answer.code) == (401, "unauthenticated")


@pytest.mark.parametrize("door", GUARDED, ids=NAMES)
def test_the_admin_passes(server: Server, door: Door) -> None:
    body = b"[]" if door.method in {"POST", "PUT"} else None
    page = server.login() if door.permission in BY_LOGIN_ONLY else None
    token = "" if page is None else None
    answer = server.call(door.method, path_of(door), body, headers=page, token=token)
    assert answer.status not in {401, 403}, answer
    assert answer.status < 500, answer


def test_a_body_is_not_read_before_the_caller_is_known(server: Server) -> None:
    answer = server.raw(
        b"POST /api/v1/runs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n"
        b"Connection: close\r\n\r\n"  # and no byte of it
    )
    assert answer.startswith(b"HTTP/1.1 401 ")


async def _endpoint(request: Request) -> Response:
    """Do nothing."""
    del request
    return Response()


def test_a_door_with_an_unknown_permission_cannot_be_made() -> None:
    with pytest.raises(Unguarded):
        Door("GET", "/x", _endpoint, permission="everything", tag="x", answers={200: None})


def test_an_unguarded_route_stops_the_start() -> None:
    async def plain(request: Request) -> Response:
        del request
        return Response()

    with pytest.raises(Unguarded, match="/plain"):
        doors.check_guarded([*DOORS, Route("/plain", plain)], open_routes=asgi.OPEN_ROUTES)
    doors.check_guarded(DOORS, open_routes=asgi.OPEN_ROUTES)
    opened = Door("GET", "/x", _endpoint, permission=OPEN, tag="x", answers={200: None})
    with pytest.raises(Unguarded, match="GET /x"):
        doors.check_guarded([opened], open_routes=asgi.OPEN_ROUTES)


def test_the_arguments_of_an_endpoint_are_found_by_their_types() -> None:
    async def endpoint(
        request: Request, run: str, query: Annotated[ListQuery, Query()]
    ) -> Response:
        """Do nothing."""
        del request, run, query
        return Response()

    shape = doors._Shape.of(endpoint)
    assert (shape.query, shape.query_name, shape.body) == (ListQuery, "query", None)
