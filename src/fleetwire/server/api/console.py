"""The console's files, and a page that says how to get them where they were not built.

The console is one page: every path that is not the API's and not a file is its own to route.
Files under /assets carry a hash of their content in their names, so browsers keep them for ever.
"""

from __future__ import annotations

import mimetypes
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Match
from starlette.types import Scope

from fleetwire.server.api.doors import OPEN, Door
from fleetwire.server.api.pages import page
from fleetwire.server.domain.errors import NotFound

CONSOLE: Final = Path(__file__).parent / "static" / "console"
_NOT_CONSOLE: Final = ("/api/", "/ws/")
_FOR_EVER: Final = "public, max-age=31536000, immutable"
_REVALIDATE: Final = "no-cache"

NOT_BUILT: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Fleetwire</title>
<style nonce="nonce-of-this-answer">
body{font:16px/1.5 system-ui;max-width:40rem;margin:4rem auto;padding:0 1rem}
code{background:#8882;padding:.1em .3em;border-radius:.2em}</style>
<h1>Fleetwire is running</h1>
<p>The server works, but its web console has not been built into this installation.</p>
<p>In a checkout: <code>./dev console</code> builds it; then reload this page.
An installed package always holds it.</p>
<p>Without it: <code>fleetwire --help</code>, or the REST API: <a href="/docs">reference</a>,
<a href="/openapi.json">OpenAPI document</a>.</p>
</html>
"""


class ConsoleFiles:
    """Serves the files of one folder, which is read at start: there is no path to escape by."""

    def __init__(self, folder: Path = CONSOLE) -> None:
        self._files = {
            path.relative_to(folder).as_posix(): path
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        index = self._files.get("index.html")
        self._index = NOT_BUILT if index is None else index.read_text("utf-8")

    async def serve(self, request: Request, path: str) -> Response:
        """Serve the console."""
        del request
        found = self._files.get(path)
        if found is None and path.startswith("assets/"):
            raise NotFound("This file is not of this version.", hint="Reload the page.")
        if found is not None and path != "index.html":
            kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
            kept = _FOR_EVER if path.startswith("assets/") else _REVALIDATE
            return FileResponse(found, media_type=kind, headers={"cache-control": kept})
        return page(self._index, cache=_REVALIDATE)


class ConsoleDoor(Door):
    """Every path but the API's: there a wrong path or method is an error, not a page."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Leave the API's paths alone."""
        if scope["path"].startswith(_NOT_CONSOLE):
            return Match.NONE, {}
        match, child = super().matches(scope)
        # The query of a page is the page's own; the API's doors refuse what they do not know.
        return match, {**child, "query_string": b""}


def doors(folder: Path = CONSOLE) -> list[Door]:
    """Return the door that takes every path no other one does; it must come last."""
    door = ConsoleDoor(
        "GET", "/{path:path}", ConsoleFiles(folder).serve, permission=OPEN, tag="console",
        answers={200: "text/html"},
    )  # fmt: skip
    door.include_in_schema = False
    return [door]
