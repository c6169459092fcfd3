from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from fleetwire.server.api import access_page, openapi
from fleetwire.server.api.asgi import OPEN_ROUTES
from fleetwire.server.api.doors import OPEN
from fleetwire.server.api.routes import DOORS

if TYPE_CHECKING:
    from tests.server.api.conftest import Server

COMMITTED = Path(__file__).parents[3] / "openapi" / "fleetwire.json"
ACCESS = Path(__file__).parents[3] / "docs" / "access.md"


def test_the_committed_document_is_what_the_code_says() -> None:
    assert COMMITTED.read_text("utf-8") == openapi.text(DOORS), "run ./dev openapi"


def test_the_committed_page_of_access_is_what_the_code_says() -> None:
    assert ACCESS.read_text("utf-8") == access_page.text(DOORS, OPEN_ROUTES), "run ./dev openapi"


def test_every_door_is_documented() -> None:
    paths = openapi.document(DOORS)["paths"]
    ids = set()
    for door in DOORS:
        operation = paths[door.path][door.method.lower()]
        ids.add(operation["operationId"])
        assert operation["summary"], door
        assert operation["description"], door
        assert operation.get("x-permission", OPEN) == door.permission
        assert bool(operation["security"]) is (door.permission != OPEN)
        for status in ("422", "500"):
            assert operation["responses"][status] == {"$ref": "#/components/responses/Problem"}
    assert len(ids) == len(DOORS)


def test_document_and_page_are_served_and_need_nothing_from_elsewhere(server: Server) -> None:
    served = server.call("GET", "/openapi.json", token=None)
    assert served.json == openapi.document(DOORS)
    assert served.json["openapi"].startswith("3.1")
    page = server.call("GET", "/docs", token=None)
    assert page.headers["content-type"].startswith("text/html")
    text = page.body.decode()
    for door in DOORS:
        assert door.path in text
    assert "<script" not in text
    assert re.findall(r"(?:href|src)=\"?([^\" >]+)", text) == ["/openapi.json"]


def test_writing_the_document(tmp_path: Path, capsys: object) -> None:
    del capsys
    target = tmp_path / "x.json"
    assert openapi.main([str(target)]) == 0
    assert target.read_text("utf-8") == openapi.text(DOORS)
