"""`/secrets` through HTTP: set, never read."""

from __future__ import annotations

import base64
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from fleetwire.core import limits
from fleetwire.core.errors import FleetwireError
from fleetwire.server.master_key import KEY_FILE
from fleetwire.server.store import tables

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.server.api.conftest import Server

CANARY = "canary-41-of-the-api"
PATH = "/api/v1/secrets"


def put(server: Server, name: str, value: str = CANARY) -> Any:
    return server.call("PUT", f"{PATH}/{name}", {"value": value})


def test_set_list_set_again_delete(server: Server) -> None:
    made = put(server, "db-password")
    assert made.status == 201
    assert set(made.json) == {
        "name", "project", "version", "created_at", "updated_at", "updated_by", "last_used_at",
    }  # fmt: skip
    assert (made.json["name"], made.json["version"]) == ("db-password", 1)
    again = put(server, "db-password", CANARY + "2")
    assert (again.status, again.json["version"]) == (200, 2)
    assert again.json["created_at"] == made.json["created_at"]
    listed = server.call("GET", PATH).json["items"]
    assert again.json in listed
    assert server.call("DELETE", f"{PATH}/db-password").status == 204
    gone = server.call("DELETE", f"{PATH}/db-password")
    assert (gone.status, gone.code) == (404, "not-found")


def test_no_route_returns_a_value(server: Server) -> None:
    put(server, "hidden")
    for method, path in (
        ("GET", PATH),
        ("GET", f"{PATH}/hidden"),
        ("POST", f"{PATH}/hidden"),
        ("PATCH", f"{PATH}/hidden"),
        ("GET", "/openapi.json"),
    ):
        answer = server.call(method, path)
        assert CANARY.encode() not in answer.body
        assert base64.b64encode(CANARY.encode()) not in answer.body
    assert server.call("GET", f"{PATH}/hidden").status == 405


def test_pages_are_by_name(server: Server) -> None:
    for name in ("page-c", "page-a", "page-b"):
        put(server, name)
    first = server.call("GET", f"{PATH}?limit=1").json
    names = [one["name"] for one in first["items"]]
    while first["next_cursor"]:
        first = server.call("GET", f"{PATH}?limit=1&cursor={first['next_cursor']}").json
        names += [one["name"] for one in first["items"]]
    assert names == sorted(names)
    assert {"page-a", "page-b", "page-c"} <= set(names)


def test_any_bytes_in_base64(server: Server) -> None:
    body = {"value_base64": base64.b64encode(bytes(range(256))).decode()}
    assert server.call("PUT", f"{PATH}/binary", body).status == 201


@pytest.mark.parametrize(
    ("name", "body", "field"),
    [
        ("a", {}, "value"),
        ("a", {"value": "x" * 9, "value_base64": "eHh4eHh4eHg="}, "value"),
        ("a", {"value_base64": "no base64!"}, "value_base64"),
        ("a", {"value": "\ud800 surrogate"}, None),
        ("a", {"value": "short"}, "value"),
        ("a", {"value": ""}, "value"),
        ("a", {"value": "x" * (limits.SECRET_BYTES + 1)}, "value"),
        ("a", {"value": CANARY, "version": 7}, "version"),
        ("a", {"value": 12345678}, "value"),
        ("-a", {"value": CANARY}, "name"),
        ("a%20b", {"value": CANARY}, "name"),
    ],
)
def test_what_cannot_be_is_refused_and_not_repeated(
    server: Server, name: str, body: dict[str, Any], field: str | None
) -> None:
    answer = server.call("PUT", f"{PATH}/{name}", body)
    assert answer.status in {400, 422}, answer
    if field is not None:
        assert answer.json.get("field") == field
    assert CANARY.encode() not in answer.body
    assert b"12345678" not in answer.body


def test_the_record_holds_no_value_in_clear(server: Server) -> None:
    put(server, "stored")
    rows = server.read(lambda c: c.execute(tables.secrets.select()).mappings().all())
    assert "stored" in {row["name"] for row in rows}
    for path in server.data.rglob("*"):
        if path.is_file():
            held = path.read_bytes()
            assert CANARY.encode() not in held, path
            assert base64.b64encode(CANARY.encode())[:20] not in held, path


def test_a_run_names_secrets_that_exist(server: Server) -> None:
    put(server, "known")
    node = server.add_node("secret-node")
    asked = {"spec": {"kind": "script", "script": "true"}, "nodes": ["secret-node"]}
    spec = asked["spec"]
    for uses, field in (
        ([{"name": "unknown"}], "spec.secrets[0].name"),
        ([{"name": "known", "as": "argument"}], "spec.secrets[0].as"),
        ([{"name": "known", "as": "env", "to": "NOT A NAME"}], "spec.secrets[0].to"),
        ([{"name": "known", "value": "x"}], "spec.secrets[0].value"),
    ):
        answer = server.call("POST", "/api/v1/runs", {**asked, "spec": {**spec, "secrets": uses}})
        assert answer.status == 422
        assert answer.json["field"] == field
    fine = {**asked, "spec": {**spec, "secrets": [{"name": "known", "as": "env", "to": "K"}]}}
    made = server.call("POST", "/api/v1/runs", fine)
    assert made.status == 201
    assert made.json["spec"]["secrets"] == [{"name": "known", "as": "env", "to": "K"}]
    assert server.call("DELETE", f"/api/v1/nodes/{node}").status == 200


def test_using_a_secret_is_a_permission_of_its_own(server: Server) -> None:
    put(server, "granted")
    node = server.add_node("granted-node")
    tokens = {
        name: server.new_user(f"secret-{name}", *roles)
        for name, roles in {
            "viewer": ("viewer",),
            "operator": ("operator",),
            "user": ("operator", "use-secret"),
            "admin": ("project-admin",),
        }.items()
    }
    spec = {"kind": "script", "script": "true", "secrets": [{"name": "granted"}]}
    asked = {"spec": spec, "nodes": ["granted-node"]}
    for who, status in (("operator", 403), ("admin", 403), ("user", 201)):
        answer = server.call("POST", "/api/v1/runs", asked, token=tokens[who])
        assert answer.status == status, answer
    refused = server.call("POST", "/api/v1/runs", asked, token=tokens["operator"])
    assert (refused.code, refused.json["field"]) == ("forbidden", "spec.secrets")
    for who, status in (("viewer", 403), ("user", 403), ("admin", 200)):
        body = {"value": CANARY}
        assert server.call("PUT", f"{PATH}/granted", body, token=tokens[who]).status == status
        assert server.call("GET", PATH, token=tokens[who]).status == 200
    assert server.call("DELETE", f"{PATH}/granted", token=tokens["user"]).status == 403
    assert server.call("DELETE", f"{PATH}/granted", token=tokens["admin"]).status == 204
    assert server.call("DELETE", f"/api/v1/nodes/{node}").status == 200


def test_projects_have_secrets_of_their_own(new_server: Callable[..., Server]) -> None:
    server = new_server()
    server.new_project("web")
    server.add_node("here")
    for project in ("web", "default"):
        body = {"value": f"{CANARY} {project}", "project": project}
        assert server.call("PUT", f"{PATH}/same", body).status == 201
    body = {"value": CANARY, "project": "web"}
    assert server.call("PUT", f"{PATH}/only-web", body).status == 201
    listed = server.call("GET", f"{PATH}?limit=2").json
    rest = server.call("GET", f"{PATH}?limit=2&cursor={listed['next_cursor']}").json
    assert [(one["name"], one["project"]) for one in listed["items"] + rest["items"]] in (
        [("only-web", "web"), ("same", "default"), ("same", "web")],
        [("only-web", "web"), ("same", "web"), ("same", "default")],
    )
    spec = {"kind": "script", "script": "true", "secrets": [{"name": "only-web"}]}
    answer = server.call("POST", "/api/v1/runs", {"spec": spec, "nodes": ["here"]})
    assert (answer.status, answer.json["field"]) == (422, "spec.secrets[0].name")


def test_a_server_does_not_start_without_the_key_of_its_secrets(
    new_server: Callable[..., Server],
) -> None:
    server = new_server()
    put(server, "needs-its-key")
    server.stop()
    key = server.data / KEY_FILE
    kept = key.read_bytes()
    key.unlink()
    with pytest.raises(FleetwireError, match="encrypted with the master key"):
        server.start()
    assert not key.exists()  # it makes no new one: that would hide the loss
    server._thread = None
    key.write_bytes(kept)
    key.chmod(0o600)
    server.start()
    assert server.call("GET", PATH).json["items"][0]["name"] == "needs-its-key"
    with contextlib.suppress(FleetwireError):
        server.stop()
