from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from fleetwire.server.api.console import NOT_BUILT, ConsoleFiles, doors
from fleetwire.server.api.pages import MARK
from fleetwire.server.domain.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.server.api.conftest import Server

INDEX = b"<p>console"


@pytest.fixture
def built(tmp_path: Path) -> Path:
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("<p>console")
    (tmp_path / "favicon.svg").write_text("<svg/>")
    (tmp_path / "assets/app-x1.js").write_text("1")
    (tmp_path.parent / "secret").write_text("secret")
    return tmp_path


@pytest.fixture
def serve(built: Path) -> Callable[[str], Response]:
    import asyncio  # noqa: PLC0415

    files = ConsoleFiles(built)
    return lambda path: asyncio.run(files.serve(Request({"type": "http"}), path))


def is_index(answer: Response) -> bool:
    return isinstance(answer, HTMLResponse) and INDEX in bytes(answer.body)


def test_every_page_of_the_console_is_its_index(serve: Callable[[str], Response]) -> None:
    for path in ("", "index.html", "runs", "runs/0190b7f0/log", "nodes?x"):
        answer = serve(path)
        assert is_index(answer)
        assert answer.headers["cache-control"] == "no-cache"


def test_assets_are_kept_for_ever(serve: Callable[[str], Response]) -> None:
    answer = serve("assets/app-x1.js")
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.media_type == "text/javascript"
    assert serve("favicon.svg").headers["cache-control"] == "no-cache"
    with pytest.raises(NotFound):
        serve("assets/app-x2.js")


@pytest.mark.parametrize("path", ["../secret", "assets/../../secret", "/etc/passwd", "..%2fsecret"])
def test_no_path_leads_out(serve: Callable[[str], Response], path: str) -> None:
    try:
        answer = serve(path)
    except NotFound:
        return
    assert is_index(answer)


def test_without_a_build_it_says_so(tmp_path: Path) -> None:
    import asyncio  # noqa: PLC0415

    answer = asyncio.run(ConsoleFiles(tmp_path / "none").serve(Request({"type": "http"}), ""))
    nonce = re.findall(r'nonce="([^"]+)"', bytes(answer.body).decode())[0]
    assert bytes(answer.body).decode() == NOT_BUILT.replace(MARK, nonce)
    assert "./dev console" in NOT_BUILT


def test_the_door_leaves_the_api_alone(built: Path) -> None:
    (door,) = doors(built)
    for path, taken in (("/", True), ("/runs/1", True), ("/api/v1/x", False), ("/ws/x", False)):
        match, _ = door.matches({"type": "http", "path": path, "method": "GET"})
        assert (match.name != "NONE") is taken, path


def test_on_the_wire(server: Server) -> None:
    for path in ("/", "/runs/some/where", "/..%2f..%2fetc/passwd", "//etc/passwd"):
        answer = server.call("GET", path, token=None)
        assert answer.status == 200
        assert b"root:" not in answer.body
        assert answer.headers["content-type"].startswith("text/html")
