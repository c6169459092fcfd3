"""Finds the door of a request by its method and the segments of its path.

A router that tries one pattern after another is a third of what a request costs here. What is
not found goes to the full router, which knows the pages and how to say no. The agents' socket is
found here too: each link would keep the router's nine frames for as long as it lives.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from fleetwire.server.api.doors import Door

_HTTP: Final = "http"
_WEBSOCKET: Final = "websocket"


class Directory:
    """ASGI application: the door that is asked for, else `otherwise` (which has all of them)."""

    def __init__(
        self, doors: Iterable[Door], otherwise: Starlette, sockets: Iterable[WebSocketRoute] = ()
    ) -> None:
        self._otherwise = otherwise
        # `/the/path/{name}`: by what stands before the last segment.
        self._sockets: dict[str, tuple[str, ASGIApp]] = {}
        for route in sockets:
            before, _, last = route.path.rpartition("/")
            if "{" in before or not last.startswith("{"):
                raise AssertionError(f"not of the form that is looked up here: {route.path}")
            self._sockets[before] = last[1:-1], route.app
        self._doors: dict[tuple[str, int], list[tuple[tuple[str | None, ...], list[str], Door]]]
        self._doors = {}
        for door in doors:
            segments = door.path.split("/")
            pattern = tuple(None if one.startswith("{") else one for one in segments)
            names = [one[1:-1] for one in segments if one.startswith("{")]
            self._doors.setdefault((door.method, len(segments)), []).append((pattern, names, door))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or socket (ASGI)."""
        if scope["type"] == _WEBSOCKET:
            before, _, last = scope["path"].rpartition("/")
            name, app = self._sockets.get(before, ("", self._otherwise))
            if name and last:
                scope["path_params"] = {name: last}
            else:
                app = self._otherwise
            await app(scope, receive, send)
            return
        found = self.find(scope["method"], scope["path"]) if scope["type"] == _HTTP else None
        if found is None:
            await self._otherwise(scope, receive, send)
            return
        door, scope["path_params"] = found
        scope["app"] = self._otherwise
        await door.app(scope, receive, send)

    def find(self, method: str, path: str) -> tuple[Door, dict[str, str]] | None:
        """Return the first door that fits, and what the path says for its parameters."""
        segments = path.split("/")
        for pattern, names, door in self._doors.get((method, len(segments)), ()):
            given = []
            for fixed, segment in zip(pattern, segments, strict=True):
                if fixed is None and segment:
                    given.append(segment)
                elif fixed != segment:
                    break
            else:
                return door, dict(zip(names, given, strict=True))
        return None
