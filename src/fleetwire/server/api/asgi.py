"""The ASGI application: the front door, then the doors, the gateway's routes and the console."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.types import ASGIApp

from fleetwire.server.api import console, openapi
from fleetwire.server.api.directory import Directory
from fleetwire.server.api.doors import check_guarded
from fleetwire.server.api.errors import problem
from fleetwire.server.api.front import FrontDoor
from fleetwire.server.api.parts import Parts
from fleetwire.server.api.routes import DOORS

OPEN_ROUTES: Final = frozenset(
    {
        # How one becomes somebody.
        "POST /api/v1/login",
        "GET /api/v1/login",
        "GET /api/v1/login/oidc",
        "GET /api/v1/login/oidc/callback",
        # Bare health, for a balancer.
        "GET /healthz",
        "GET /readyz",
        # What is in the public source of this version: nothing of this server, fleet or people.
        "GET /openapi.json",
        "GET /docs",
        "GET /{path:path}",
        # The agents' routes: each agent proves itself by its own means (an enrolment token, a
        # signature over the challenge) before anything it says is believed.
        "/api/agents/register/",
        "/ws/agent/{node}",
        # The CA's certificate is public: it is what a fingerprint is compared with.
        "/api/agents/ca",
    }
)
"""All that answers somebody whom nobody knows: a route that is neither here nor behind a
permission stops the start (deny by default)."""


def build(
    parts: Parts,
    *,
    gateway: Sequence[BaseRoute],
    names: Callable[[], frozenset[str]],
    error_id: Callable[[], str],
) -> ASGIApp:
    """Return the application. Raises Unguarded when a route does not say who may pass."""
    app = _Application(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.parts = parts
    app.router.routes.extend((*DOORS, *gateway, *openapi.doors(DOORS), *console.doors()))
    check_guarded(app.router.routes, open_routes=OPEN_ROUTES)
    sockets = [route for route in gateway if isinstance(route, WebSocketRoute)]
    return FrontDoor(Directory(DOORS, app, sockets), names=names, error_id=error_id)


class _Application(FastAPI):
    """FastAPI without its middleware: the front door catches errors, and no door needs a stack
    of dependencies to close.
    """

    def build_middleware_stack(self) -> ASGIApp:
        return ExceptionMiddleware(self.router, handlers={HTTPException: _http_problem})


async def _http_problem(request: Request, error: Exception) -> Response:
    """Turn the router's own refusals into problem documents."""
    if not isinstance(error, HTTPException):
        raise AssertionError("registered for HTTPException only")  # noqa: TRY004 - a fault of ours
    method, path = request.method, request.url.path[:200]
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "")
        return problem(
            "method-not-allowed",
            405,
            f"{method} is not possible at {path}.",
            hint=f"Possible: {allowed}.",
            headers=error.headers,
        )
    if error.status_code == HTTPStatus.NOT_FOUND:
        return problem(
            "not-found", 404, f"There is nothing at {path}.", hint="/docs lists what there is."
        )
    return problem("bad-request", error.status_code, str(error.detail))
