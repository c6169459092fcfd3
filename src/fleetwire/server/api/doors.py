"""A door: one route of the API, which says who may pass before it reads anything.

FastAPI routes, checks nothing and writes the OpenAPI document; the way of a request through a
door is ours, because the order matters and because it is four times quicker: authenticate,
authorise, query, body, endpoint. An endpoint is declared as for plain FastAPI:

    async def endpoint(request: Request, run: str, query: Annotated[Q, Query()], body: B)

with path parameters as `str`, at most one pydantic model for the query, and one for the body.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, cast, get_args, get_type_hints
from urllib.parse import parse_qsl

from fastapi import params
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from fleetwire.core import access
from fleetwire.core.access import Forbidden, Reach
from fleetwire.core.audit import ACTIONS, Action
from fleetwire.core.errors import FleetwireError
from fleetwire.server.api import noting
from fleetwire.server.api.errors import (
    BadJson,
    Unprocessable,
    UnsupportedMediaType,
    problem_of,
    sendable,
)
from fleetwire.server.api.parts import parts_of
from fleetwire.server.domain.people import Caller

Endpoint: TypeAlias = Callable[..., Awaitable[Response]]
OPEN: Final = "open"
"""Instead of a permission: whoever asks. The list of these doors is short and tested."""

QUERY_FIELDS: Final = 32
SLOW_BODY_S: Final = 1.0
Answers: TypeAlias = Mapping[int, Any]
PROBLEM: Final[dict[str, Any]] = {"description": "Problem document"}
"""Stands for the shared response of errors (`openapi`)."""


class Unguarded(FleetwireError):
    """A route does not say who may pass: the server must not start (deny by default)."""

    code = "unguarded-route"


class Door(APIRoute):
    """One route with the permission it needs (`core.access`), or `OPEN`, and the `action` that the
    audit calls it by: no door that changes something is without (`noting`).

    `answers` are the documented responses: a pydantic model, None for no content, or the media
    type of a body that is not JSON. `problems` are the error statuses beyond the usual ones.
    """

    def __init__(
        self,
        method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"],
        path: str,
        endpoint: Endpoint,
        *,
        permission: str,
        action: Action | None = None,
        answers: Answers,
        problems: Sequence[int] = (),
        headers: Mapping[str, str] | None = None,
        tag: str,
    ) -> None:
        if permission != OPEN and permission not in access.PERMISSIONS:
            raise Unguarded(
                f"{method} {path} needs the permission {permission!r}, which nobody can have.",
                hint="Use one of core.access.Permission.",
            )
        if (action is None and method != "GET") or action not in {None, *ACTIONS}:
            raise Unguarded(
                f"{method} {path} does not say what the audit calls it ({action}).",
                hint="Use one of core.audit.Action.",
            )
        self.permission = permission
        self.action = action
        self.method = method
        self._shape = _Shape.of(endpoint)
        expected = {422, 500, 503, *problems}
        if permission != OPEN:
            expected |= {401, 403}
        if self._shape.body is not None:
            expected |= {400, 413, 415}
        if method != "GET":
            expected.add(507)
        super().__init__(
            path,
            endpoint,
            methods=[method],
            status_code=min(answers),
            response_class=Response,
            response_model=None,
            responses={
                **dict.fromkeys(expected, PROBLEM),
                **{status: _documented(body) for status, body in answers.items()},
            },
            operation_id=_operation_id(method, path),
            summary=(inspect.getdoc(endpoint) or "").partition("\n")[0],
            tags=[tag],
            openapi_extra={**_security(permission), **_headers(headers or {})},
        )
        self.app = self._pass

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        try:
            response = await self._answer(request)
        except FleetwireError as error:
            response = problem_of(error)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        note = None
        try:
            if self.permission != OPEN:
                await self._enter(request)
            if self.action is not None:
                caller = None if self.permission == OPEN else caller_of(request)
                note = noting.begin(request, self.action, caller, self.permission)
            response = await self._ask(request)
        except FleetwireError as error:
            await self._refused(request, note, error)
            raise
        if note is not None and not note.is_said:
            raise noting.Unaudited(f"{self.method} {self.path} did not say what it has done.")
        return response

    async def _refused(
        self, request: Request, note: noting.Note | None, error: FleetwireError
    ) -> None:
        """Write what was refused into the audit."""
        if note is None:
            caller = cast("Caller | None", request.scope.get("fleetwire.caller"))
            note = noting.begin(request, self.action or "read", caller, self.permission)
        if noting.is_refusal(note, error):
            asked = {name: str(value) for name, value in request.path_params.items()}
            route = f"{self.method} {self.path}"
            await noting.refuse(parts_of(request), note, error, **asked, route=route)

    async def _ask(self, request: Request) -> Response:
        arguments: dict[str, Any] = dict(request.path_params)
        shape = self._shape
        query = parse_query(request.scope["query_string"], shape.query)
        if shape.query_name is not None:
            arguments[shape.query_name] = query
        if shape.body is not None:
            began = time.monotonic()
            body = await _body(request.receive)
            if self.permission != OPEN and time.monotonic() - began > SLOW_BODY_S:
                await self._enter(request)  # rights may have ended while it came
            arguments[shape.body_name] = parse_body(
                request.headers.get("content-type"), body, shape.body
            )
        endpoint: Endpoint = self.endpoint
        return await endpoint(request, **arguments)

    async def _enter(self, request: Request) -> None:
        """Authenticate and authorise, or raise why not."""
        caller = await parts_of(request).auth.caller(request)
        request.scope["fleetwire.caller"] = caller
        request.scope["fleetwire.reach"] = reached(caller, self.permission)


async def _body(receive: Receive) -> bytes:
    """Return a request's body, whose size the front door bounds: as `Request.body` does, without
    its layers.
    """
    blocks = []
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        blocks.append(message.get("body", b""))
        more = message.get("more_body", False)
    return blocks[0] if len(blocks) == 1 else b"".join(blocks)


def caller_of(request: Request) -> Caller:
    """Return who makes the request; only behind a door that is not open."""
    return cast("Caller", request.scope["fleetwire.caller"])


def reach_of(request: Request) -> Reach:
    """Return how far the permission of the request's door goes: in which projects its caller has
    it. Only behind a door whose permission is one of projects.
    """
    return cast("Reach", request.scope["fleetwire.reach"])


def reached(caller: Caller, permission: str) -> Reach | None:
    """Return how far a permission goes; None for one that is not of projects. Raises Forbidden
    where the caller does not have it anywhere.
    """
    if permission in access.IN_PROJECT:
        reach = caller.reaches.get(permission)
        if reach is None:
            reach = caller.reaches[permission] = access.reach(caller.rights, permission)
        if not reach.is_nowhere:
            return reach
        where = "in any project"
    else:
        if access.allowed(caller.rights, permission):
            return None
        where = "here"
    raise Forbidden(
        f"You do not have the permission {permission!r} {where}.",
        hint="Ask a system admin, or an admin of the project.",
    )


def check_guarded(routes: Iterable[BaseRoute], *, open_routes: frozenset[str]) -> None:
    """Raise Unguarded for a route that is neither behind a permission nor one of `open_routes`
    (`METHOD path` of doors, the path of others).
    """
    for route in routes:
        name = str(getattr(route, "path", None))
        if isinstance(route, Door):
            if route.permission != OPEN:
                continue
            name = f"{route.method} {name}"
        if name not in open_routes:
            raise Unguarded(
                f"The route {name!r} does not say who may pass.",
                hint="Make it a Door with a permission.",
            )


class _Shape:
    """Which arguments of an endpoint are the query's and the body's models."""

    def __init__(self) -> None:
        self.query: type[BaseModel] | None = None
        self.query_name: str | None = None
        self.body: type[BaseModel] | None = None
        self.body_name = ""

    @staticmethod
    def of(endpoint: Endpoint) -> _Shape:
        shape = _Shape()
        hints = get_type_hints(endpoint, include_extras=True)
        for name in inspect.signature(endpoint).parameters:
            hint = hints[name]
            model, *marks = get_args(hint) or (hint,)
            if any(isinstance(mark, params.Query) for mark in marks):
                shape.query, shape.query_name = model, name
            elif inspect.isclass(model) and issubclass(model, BaseModel):
                shape.body, shape.body_name = model, name
        return shape


def parse_query(query_string: bytes, model: type[BaseModel] | None) -> BaseModel | None:
    """Read a query string strictly: every parameter known, given once, in valid UTF-8."""
    if model is None and not query_string:
        return None
    try:
        pairs = parse_qsl(
            query_string.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=QUERY_FIELDS,
        )
    except ValueError as error:
        raise Unprocessable(
            f"The query string cannot be read: {error}.",
            hint="Send NAME=VALUE pairs joined by &, percent-encoded UTF-8.",
        ) from None
    values: dict[str, str] = {}
    known = model.model_fields if model is not None else {}
    for name, value in pairs:
        if name not in known:
            listed = ", ".join(known) or "none"
            raise Unprocessable(
                f"The query parameter {name[:80]!r} is not known here.",
                hint=f"Known: {listed}.",
                field=name[:80],
            )
        if name in values:
            raise Unprocessable(
                f"The query parameter {name!r} is given twice.", hint="Give it once.", field=name
            )
        values[name] = value
    if model is None:
        return None
    try:
        return model.model_validate_strings(values)
    except ValidationError as error:
        raise unprocessable(error) from None


def parse_body(content_type: str | None, body: bytes, model: type[BaseModel]) -> BaseModel:
    """Read a JSON body strictly: no unknown field, no conversion between types."""
    media_type = (content_type or "").partition(";")[0].strip().lower()
    if media_type != "application/json" and (body or media_type):
        raise UnsupportedMediaType(
            f"The body is {media_type[:80] or 'of no type'!r}.",
            hint="Send JSON with Content-Type: application/json.",
        )
    try:
        return model.model_validate_json(body or b"{}")
    except ValidationError as error:
        raise unprocessable(error) from None


def unprocessable(error: ValidationError) -> FleetwireError:
    """Return the first thing that is wrong, in a person's words, with the field's path."""
    first = error.errors(include_url=False, include_context=True, include_input=False)[0]
    if first["type"] == "json_invalid":
        return BadJson(
            f"The body is not JSON: {sendable(str(first['ctx']['error']))}.",
            hint="Send one JSON object in UTF-8.",
        )
    field = field_path(first["loc"])
    if first["type"] == "extra_forbidden":
        return Unprocessable(
            f"{field} is not a known field.", hint="Remove it, or mend its spelling.", field=field
        )
    if first["type"] == "missing":
        return Unprocessable(f"{field} is missing.", hint="Give it.", field=field)
    said = sendable(first["msg"]).removeprefix("Value error, ")
    return Unprocessable(f"{field or 'The body'}: {said}.", hint=_more(error), field=field or None)


def field_path(location: Sequence[str | int]) -> str:
    """Return a path such as `spec.args[3]`; the tag of a union is no part of it."""
    steps = list(location)
    if len(steps) > 1 and steps[0] == "spec":
        del steps[1]  # which kind of spec it was read as
    path = ""
    for step in steps:
        if isinstance(step, int):
            path += f"[{step}]"
        else:
            path += f".{step}" if path else step
    return sendable(path)[:200]


def _more(error: ValidationError) -> str:
    count = error.error_count() - 1
    if not count:
        return "/docs and /openapi.json say what may stand there."
    return f"{count} more field{'s' if count > 1 else ''} cannot be accepted either."


def _documented(body: Any) -> dict[str, Any]:  # noqa: ANN401 - a model or a media type
    if body is None:
        return {"description": "Done"}
    if isinstance(body, str):
        return {"description": "The content", "content": {body: {"schema": {"type": "string"}}}}
    return {"description": "The answer", "model": body}


def _operation_id(method: str, path: str) -> str:
    words = path.removeprefix("/api/v1").replace("{", "").replace("}", "").replace("-", "_")
    return f"{method.lower()}{words.replace('/', '_')}"


def _headers(headers: Mapping[str, str]) -> dict[str, Any]:
    if not headers:
        return {}
    return {
        "parameters": [
            {"in": "header", "name": name, "schema": {"type": "string"}, "description": about}
            for name, about in headers.items()
        ]
    }


def _security(permission: str) -> dict[str, Any]:
    if permission == OPEN:
        return {"security": []}
    return {"security": [{"token": []}, {"cookie": []}], "x-permission": permission}
