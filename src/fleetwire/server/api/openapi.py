"""The OpenAPI document, and a reference page made from it that needs nothing from elsewhere.

`python -m fleetwire.server.api.openapi [FILE]` writes the document; openapi/fleetwire.json is
committed, and a test fails when it differs from the code.
"""

from __future__ import annotations

import html
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from fleetwire import __version__
from fleetwire.server.api import pages, views
from fleetwire.server.api.doors import OPEN, PROBLEM, Door

DESCRIPTION: Final = """\
Run scripts on every machine of a fleet, watch them live, and trust the record.

Every request but the open ones needs an API token (`Authorization: Bearer fw_...`) or a login
cookie. Errors are problem documents (RFC 9457) with a stable `code`. Times are RFC 3339 in UTC,
durations seconds. Lists are pages, newest first: send `next_cursor` back as `cursor`. Unknown
fields and query parameters are errors.
"""


def document(routes: Sequence[BaseRoute]) -> dict[str, Any]:
    """Return the OpenAPI document of these routes, the same for every process of one version."""
    made = get_openapi(
        title="Fleetwire",
        version=__version__,
        summary="A control plane for fleets of machines",
        description=DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        routes=[route for route in routes if isinstance(route, Door)],
    )
    components = made.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas["Problem"] = views.Problem.model_json_schema()
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    components["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "An API token, fw_..."},
        "cookie": {"type": "apiKey", "in": "cookie", "name": "fleetwire_session"},
    }
    components["schemas"] = dict(sorted(schemas.items()))
    components["responses"] = {
        "Problem": {
            "description": "What went wrong, why, and what to do (RFC 9457)",
            "content": {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
            },
        }
    }
    for methods in made["paths"].values():
        for operation in methods.values():
            operation["responses"] = {
                status: _SHARED if _is_problem(status, answer) else answer
                for status, answer in sorted(operation["responses"].items())
            }
    return made


_SHARED: Final = {"$ref": "#/components/responses/Problem"}


def _is_problem(status: str, answer: dict[str, Any]) -> bool:
    # FastAPI adds a 422 of its own where a door did not say one.
    return answer.get("description") == PROBLEM["description"] or status == "422"


def text(routes: Sequence[BaseRoute]) -> str:
    """Return the document as it is committed."""
    return json.dumps(document(routes), indent=1, ensure_ascii=False) + "\n"


def page(made: dict[str, Any]) -> str:
    """Return the reference page: plain HTML, readable without a script and without a network."""
    rows = []
    for path, methods in made["paths"].items():
        for method, operation in methods.items():
            rows.append(_operation(path, method, operation))
    return _PAGE.format(
        version=html.escape(made["info"]["version"]),
        about=html.escape(made["info"]["description"]).replace("\n\n", "</p><p>"),
        rows="\n".join(rows),
    )


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    needs = operation.get("x-permission", "nothing: open")
    arguments = "".join(
        f"<li><code>{html.escape(one['name'])}</code> ({one['in']}"
        f"{', required' if one.get('required') else ''})</li>"
        for one in operation.get("parameters", ())
    )
    body = operation.get("requestBody")
    if body:
        schema = body["content"]["application/json"]["schema"].get("$ref", "").rpartition("/")[2]
        arguments += f"<li>body: <code>{html.escape(schema)}</code></li>"
    about = html.escape(operation.get("description", ""))
    return (
        f"<section><h2><b>{method.upper()}</b> {html.escape(path)}</h2><p>{about}</p>"
        f"<ul>{arguments}</ul><p class=n>Needs: {html.escape(needs)}. Answers: "
        f"{', '.join(operation['responses'])}.</p></section>"
    )


_PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Fleetwire REST API</title>
<meta name="viewport" content="width=device-width">
<style nonce="nonce-of-this-answer">
body{{font:15px/1.5 system-ui;max-width:52rem;margin:2rem auto;padding:0 1rem;
color-scheme:light dark}}h2{{font:600 1rem ui-monospace,monospace;margin:2rem 0 0}}
b{{color:#4f46e5}}p,ul{{margin:.2rem 0}}.n{{opacity:.7}}</style>
<h1>Fleetwire REST API {version}</h1><p>{about}</p>
<p>The same for programs, with all fields and schemas:
<a href="/openapi.json">openapi.json</a> (OpenAPI 3.1).</p>
{rows}
</html>
"""


def doors(routes: Sequence[BaseRoute]) -> list[Door]:
    """Return the doors of document and page.

    They are open: both say only what is in the public source of this version, nothing of this
    server, its fleet or its people; and a tool that makes a client has no login.
    """
    made = document(routes)
    as_json = json.dumps(made).encode()
    as_html = page(made)

    async def openapi_json(request: Request) -> Response:
        """Return this API's OpenAPI document."""
        del request
        return Response(as_json, media_type="application/json")

    async def docs(request: Request) -> Response:
        """Return this reference as a page."""
        del request
        return pages.page(as_html)

    found = [
        Door("GET", "/openapi.json", openapi_json, permission=OPEN, tag="docs",
             answers={200: "application/json"}),
        Door("GET", "/docs", docs, permission=OPEN, tag="docs", answers={200: "text/html"}),
    ]  # fmt: skip
    for door in found:
        door.include_in_schema = False
    return found


def main(arguments: Sequence[str]) -> int:
    """Write the document to a file, or to stdout."""
    from fleetwire.server.api.routes import DOORS  # noqa: PLC0415 - it imports this module

    made = text(DOORS)
    if arguments:
        Path(arguments[0]).write_text(made, encoding="utf-8")
    else:
        sys.stdout.write(made)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
