"""The directory finds what the full router finds."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.routing import Match

from fleetwire.server.api.directory import Directory
from fleetwire.server.api.routes import DOORS

PATHS = [
    "/healthz",
    "/healthz/",
    "//healthz",
    "/api/v1/runs",
    "/api/v1/runs/",
    "/api/v1/runs/abc",
    "/api/v1/runs/{run}",
    "/api/v1/runs//events",
    "/api/v1/runs/abc/events",
    "/api/v1/runs/abc/events/",
    "/api/v1/runs/a%2Fb/events",
    "/api/v1/attempts/abc/log/raw",
    "/api/v1/attempts/a b/log",
    "/api/v1/login",
    "/api/v1",
    "/",
    "",
]


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "HEAD", "PUT"])
@pytest.mark.parametrize("path", PATHS)
def test_the_directory_agrees_with_the_router(method: str, path: str) -> None:
    found = Directory(DOORS, Starlette()).find(method, path)
    scope = {"type": "http", "method": method, "path": path, "root_path": ""}
    expected = None
    for door in DOORS:
        match, child = door.matches(scope)
        if match is Match.FULL:
            expected = (door, child["path_params"])
            break
    assert found == expected


def test_every_door_is_found() -> None:
    directory = Directory(DOORS, Starlette())
    for door in DOORS:
        found = directory.find(door.method, door.path)
        assert found is not None
        assert found[0] is door
