"""What others may change between a look and a deed goes out with what was seen."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.client.conftest import ScriptedServer, reply

from fleetwire.cli import app

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MEMBER = {"user": "ann", "user_id": "u1", "project": "default", "project_id": "p1"}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ScriptedServer]:
    scripted = ScriptedServer()
    monkeypatch.setenv("FLEETWIRE_URL", scripted.url)
    monkeypatch.setenv("FLEETWIRE_TOKEN", "t")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    yield scripted
    scripted.close()


@pytest.mark.parametrize(
    ("verb", "then"), [("grant", ["auditor", "operator", "viewer"]), ("revoke", ["viewer"])]
)
def test_roles_go_out_with_what_they_were(
    server: ScriptedServer, verb: str, then: list[str]
) -> None:
    listed = {"items": [MEMBER | {"roles": ["viewer", "operator"]}], "next_cursor": None}
    changed = MEMBER | {"roles": then}
    server.answers += [reply(json.dumps(listed).encode()), reply(json.dumps(changed).encode())]
    word = "auditor" if verb == "grant" else "operator"
    assert app.run(["roles", verb, "ann", word]) == 0
    assert json.loads(server.asked[-1].body) == {"roles": then, "was": ["operator", "viewer"]}


def test_only_who_still_waits_is_turned_away(server: ScriptedServer) -> None:
    gone = {"id": "n1", "name": "web-1", "lost": 0}
    server.answers += [reply(json.dumps(gone).encode())] * 2
    assert app.run(["nodes", "deny", "web-1"]) == 0
    asked = server.asked[-1]
    assert asked.method == "DELETE"
    assert "only=waiting" in asked.path.partition("?")[2].split("&")
