"""The front door: what holds for every request before any route is known, and every answer after.

Host names (DNS rebinding), sizes of URL and body, origins of sockets, security headers, and the
one place where an error that nobody foresaw becomes a 500 with an id.
"""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections.abc import Callable
from typing import Final

import structlog
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleetwire.core import limits
from fleetwire.core.errors import FleetwireError
from fleetwire.server.api.auth import same_origin
from fleetwire.server.api.errors import (
    BadHost,
    BodyTooLarge,
    BodyTooSlow,
    UrlTooLong,
    problem,
    problem_of,
)
from fleetwire.server.api.pages import policy

LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
URL_BYTES: Final = limits.URL_BYTES
# What is read of a body that nobody wants, so that the answer to it can be read.
LINGER_BYTES: Final = 4 * limits.MIB
LINGER_S: Final = 2.0

SECURITY_HEADERS: Final = {
    "content-security-policy": policy(),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_HEADERS: Final = [(k.encode(), v.encode()) for k, v in SECURITY_HEADERS.items()]
_ON_TLS: Final = (b"strict-transport-security", b"max-age=31536000")
_NO_STORE: Final = (b"cache-control", b"no-store")


class FrontDoor:
    """ASGI application around the API. `names` returns the hosts that it answers to now, in lower
    case, besides loopback's; it is asked for each request.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        names: Callable[[], frozenset[str]],
        error_id: Callable[[], str],
    ) -> None:
        self._app = app
        self._names = names
        self._error_id = error_id
        self._log = structlog.get_logger("fleetwire.server.api")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or socket (ASGI)."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        declared = _declared_length(scope)
        body = _Bounded(receive, is_complete=declared == 0)
        is_tls = scope["scheme"] == "https"
        answer = _Answer(send, body, lingers=declared <= LINGER_BYTES, is_tls=is_tls)
        try:
            self._check(scope)
            if declared > limits.BODY_BYTES:
                raise _too_large()
            await self._app(scope, body.receive, answer.send)
        except FleetwireError as error:
            if answer.has_begun:
                self._log.warning("answer cut short", path=scope["path"], error=str(error))
                return  # the server closes the connection, so nobody takes it for whole
            await problem_of(error)(scope, receive, answer.send)
        except ClientDisconnect:
            return  # nobody is there to be answered
        except Exception as error:  # noqa: BLE001 - the one place where nothing may get past
            error_id = self._error_id()
            self._log.error(
                "request failed",
                error_id=error_id,
                method=scope["method"],
                path=scope["path"],
                error=repr(error)[:500],
                where=_where(error),
            )
            if answer.has_begun:
                return  # as above
            response = problem(
                "internal",
                500,
                "The server made a mistake; it is in its log.",
                hint=f"Tell your administrator the id {error_id}.",
                id=error_id,
            )
            await response(scope, receive, answer.send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        try:
            self._check(scope)
        except FleetwireError:
            refused = True
        else:
            # Agents send no Origin; a browser always does, on every socket without exception.
            refused = origin is not None and not same_origin(
                origin, headers.get("host", ""), scope["scheme"]
            )
        if refused:
            await receive()
            await send({"type": "websocket.close", "code": 4403, "reason": "not from there"})
            return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        host = _without_port(hosts[0].decode("latin-1").lower() if len(hosts) == 1 else "")
        if host not in LOOPBACK_NAMES and host not in self._names():
            raise BadHost(
                f"This server does not answer to the name {host[:200]!r}.",
                hint="Use localhost, or add the name to the server's setting `names`.",
            )
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > URL_BYTES:
            raise UrlTooLong("The URL is too long.", hint=f"At most {URL_BYTES} bytes.")


class _Bounded:
    """Counts a body while it is read, however it is sent."""

    def __init__(self, receive: Receive, *, is_complete: bool) -> None:
        self._receive = receive
        self._count = 0
        self._until: float | None = None
        self.is_complete = is_complete

    async def receive(self) -> Message:
        message = await (self._receive() if self.is_complete else self._in_time())
        if message["type"] == "http.request":
            self._count += len(message.get("body", b""))
            if self._count > limits.BODY_BYTES:
                raise _too_large()
            self.is_complete = not message.get("more_body", False)
        return message

    async def _in_time(self) -> Message:
        """Wait for more of the body, until all of it has had its time: who sends a byte now and
        then holds nothing here for long.
        """
        now = asyncio.get_running_loop().time()
        if self._until is None:
            self._until = now + limits.BODY_WITHIN_S
        try:
            async with asyncio.timeout(self._until - now):
                return await self._receive()
        except TimeoutError:
            raise BodyTooSlow(
                "The body did not come in time.",
                hint=f"All of it must come within {limits.BODY_WITHIN_S:g} s.",
            ) from None

    async def drain(self) -> None:
        """Read on for a moment, and throw away: a client that is still sending when we close
        finds a broken pipe in the place of the answer (RFC 9112, 9.6).
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while not self.is_complete and self._count <= LINGER_BYTES:
                    message = await self._receive()
                    if message["type"] != "http.request":
                        return
                    self._count += len(message.get("body", b""))
                    self.is_complete = not message.get("more_body", False)


class _Answer:
    """Adds the security headers, and remembers whether an answer has begun."""

    def __init__(self, send: Send, body: _Bounded, *, lingers: bool, is_tls: bool) -> None:
        self._is_tls = is_tls
        self._send = send
        self._body = body
        self._lingers = lingers
        self.has_begun = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_begun = True
            if not self._body.is_complete and self._lingers:
                await self._body.drain()
            headers = message["headers"]
            given = {name for name, _ in headers}
            if b"cache-control" not in given:
                headers.append(_NO_STORE)
            headers.extend(one for one in _HEADERS if one[0] not in given)
            if self._is_tls:
                headers.append(_ON_TLS)
            if not self._body.is_complete:
                # Answered before the body was read: nobody wants the rest of it.
                headers.append((b"connection", b"close"))
        await self._send(message)


def _too_large() -> BodyTooLarge:
    return BodyTooLarge("The body is too large.", hint=f"At most {limits.BODY_BYTES} bytes.")


def _declared_length(scope: Scope) -> int:
    """Return the Content-Length, 1 where the body is chunked, 0 where there is none."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value)  # the HTTP parser has taken nothing but digits
        if name == b"transfer-encoding":
            return 1
    return 0


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def _where(error: BaseException) -> str:
    """Return the innermost frames on one line."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    return " < ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in reversed(frames))


__all__ = ["SECURITY_HEADERS", "URL_BYTES", "FrontDoor"]
