"""Each role at each door, and the walls between projects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from tests.server.api.conftest import Answer, Server

from fleetwire.core import access
from fleetwire.core.access import BY_LOGIN_ONLY
from fleetwire.server.api.access_page import EVERYBODY, passes
from fleetwire.server.api.doors import OPEN, Door
from fleetwire.server.api.routes import DOORS

GUARDED = [door for door in DOORS if door.permission != OPEN]
IN_PROJECT = [door for door in GUARDED if door.permission in access.IN_PROJECT]
OF_ONE = [door for door in IN_PROJECT if "{" in door.path]


@dataclass(frozen=True)
class Fleet:
    """A server with a project that the users here have no part in, and all of its ids."""

    server: Server
    tokens: dict[str, str]
    ids: dict[str, str]
    names: tuple[str, ...]

    def path(self, door: Door) -> str:
        path = door.path
        for name, id_ in self.ids.items():
            path = path.replace(f"{{{name}}}", id_)
        assert "{" not in path, path
        return path

    def call(self, door: Door, who: str) -> Answer:
        body = b"[]" if door.method in {"POST", "PUT"} else None
        return self.server.call(door.method, self.path(door), body, token=self.tokens[who])


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    # A server of its own: what others leave in `default` would be found there. Its database is
    # one that it makes itself.
    server = Server(tmp_path_factory.mktemp("fleet") / "data")
    server.start()
    hidden = server.new_project("hidden-project")
    node = server.add_node("hidden-node", project=hidden, os="hidden-os")
    run = server.submit(nodes=["hidden-node"], project="hidden-project")
    attempt = run["tasks"][0]["attempt"]
    server.append(attempt, b"hidden output\n")
    token = server.call("POST", "/api/v1/enrolment-tokens", {"project": "hidden-project"}).json
    secret = {"value": "hidden value", "project": "hidden-project"}
    assert server.call("PUT", "/api/v1/secrets/hidden-secret", secret).status == 201
    tokens = {
        who: server.new_user(
            f"{who.replace(' ', '-')}-user",
            *(rights.roles.get("p", ())),
            role="admin" if rights.is_system_admin else "user",
        )
        for who, rights in EVERYBODY.items()
    }
    ids = {
        "run": run["id"], "node": node, "attempt": attempt, "token": token["id"],
        "project": hidden, "user": app_user(server, "nobody-user"), "session": "x",
        "secret": "hidden-secret",
    }  # fmt: skip
    names = (
        "hidden-node", "hidden-os", "hidden output", "hidden-secret", "hidden value",
        run["id"], node, attempt, token["id"],
    )  # fmt: skip
    yield Fleet(server, tokens, ids, names)
    server.stop()


def app_user(server: Server, name: str) -> str:
    return str(server.call("GET", f"/api/v1/users/{name}").json["id"])


@pytest.mark.parametrize("who", EVERYBODY)
def test_the_route_x_role_table(fleet: Fleet, who: str) -> None:
    """Each role passes exactly the doors that docs/access.md names, and is told at the others."""
    for door in GUARDED:
        if "stream" in door.path or door.path.endswith("/events"):
            continue  # tried below: they last
        if door.method == "DELETE" and door.path == "/api/v1/login":
            continue
        answer = fleet.call(door, who)
        assert answer.status < 500, (door.path, answer)
        is_refused = answer.status == 403 and answer.code == "forbidden"
        # They come with API tokens, which may not touch their owners' accounts.
        may = passes(EVERYBODY[who], door.permission) and door.permission not in BY_LOGIN_ONLY
        assert is_refused is not may, (door.path, answer)


@pytest.mark.parametrize("who", [who for who in EVERYBODY if who != "system admin"])
def test_what_another_project_has_does_not_exist(fleet: Fleet, who: str) -> None:
    """404 for what is there as for what never was, by the same words; the names stay there."""
    for door in OF_ONE:
        if not passes(EVERYBODY[who], door.permission):
            continue
        if (door.method, door.path) == ("PUT", "/api/v1/secrets/{secret}"):
            continue  # it makes one, in a project of the caller's own
        path = fleet.path(door) + ("?q=x" if door.path.endswith("/search") else "")
        body: Any = {"roles": []} if door.method == "PUT" else None
        body = {"admin": "draining"} if door.method == "PATCH" else body
        answer = fleet.server.call(door.method, path, body, token=fleet.tokens[who])
        assert (answer.status, answer.code) == (404, "not-found"), (door.path, answer)
        never = path
        for id_ in fleet.ids.values():
            never = never.replace(id_, "0190b7f0-1c2d-7abc-8def-0123456789ab")
        other = fleet.server.call(door.method, never, body, token=fleet.tokens[who])
        said = answer.body
        for id_ in fleet.ids.values():
            said = said.replace(id_.encode(), b"0190b7f0-1c2d-7abc-8def-0123456789ab")
        assert said == other.body


@pytest.mark.parametrize("who", [who for who in EVERYBODY if who != "system admin"])
def test_no_list_and_no_error_names_what_another_project_has(fleet: Fleet, who: str) -> None:
    """Beyond the words that they asked with themselves."""

    def ask(method: str, path: str, body: Any = None) -> Answer:
        answer = fleet.server.call(method, path, body, token=fleet.tokens[who])
        asked = f"{path} {body}"
        if "/audit" in path:
            # Somebody has asked for a secret of that name in `default`, and its audit says so.
            asked += " hidden-secret"
        for name in (*fleet.names, "hidden-project"):
            assert name in asked or name.encode() not in answer.body, answer
        return answer

    for door in GUARDED:
        if door.method == "GET" and "{" not in door.path:
            ask("GET", door.path)
    for project in ("hidden-project", fleet.ids["project"], "no-such-project"):
        for path in ("nodes", "runs", "enrolment-tokens", "secrets"):
            assert ask("GET", f"/api/v1/{path}?project={project}").status in {403, 404}
    for where in ({"selector": "os=nothing"}, {"nodes": ["hidden-node"]}, {"selector": "!zzz"}):
        body = {"spec": {"kind": "script", "script": "echo"}, **where}
        assert ask("POST", "/api/v1/runs", body).status in {403, 422}
        assert ask("POST", "/api/v1/runs", body | {"project": "hidden-project"}).status in {
            403,
            404,
        }
    ask("GET", f"/api/v1/runs/{fleet.ids['run'][:8]}")


def test_a_run_stays_in_its_project(new_server: Callable[..., Server]) -> None:
    """Names are a project's own, and `any` takes no other project's node."""
    server = new_server()
    web = server.new_project("web")
    here, there = server.add_node("n", os="linux"), server.add_node("n", project=web, os="linux")
    for project, node in (("default", here), ("web", there)):
        for where in ({"nodes": ["n"]}, {"selector": "os=linux"}):
            run = server.submit(project=project, **where)
            assert run["project"] == project
            assert [task["node_id"] for task in run["tasks"]] == [node]
    assert server.call("GET", "/api/v1/nodes/n").code == "ambiguous-id"
    listed = server.call("GET", "/api/v1/nodes?project=web").json["items"]
    assert [(one["id"], one["project"]) for one in listed] == [(there, "web")]
    first = server.call("GET", "/api/v1/nodes?limit=1").json
    second = server.call("GET", f"/api/v1/nodes?limit=1&cursor={first['next_cursor']}").json
    assert {first["items"][0]["id"], second["items"][0]["id"]} == {here, there}
    assert second["next_cursor"] is None


def test_one_who_is_in_two_projects_names_one(new_server: Callable[..., Server]) -> None:
    server = new_server()
    a, b = server.new_project("a"), server.new_project("b")
    token = server.new_user("ann", "operator", project=a)
    server.add_node("n", project=a, os="linux")
    asked = {"spec": {"kind": "ping"}, "nodes": ["n"]}
    assert server.call("POST", "/api/v1/runs", asked, token=token).json["project"] == "a"
    body = {"roles": ["operator"]}
    assert server.call("PUT", f"/api/v1/projects/{b}/members/ann", body).status == 200
    answer = server.call("POST", "/api/v1/runs", asked, token=token)
    assert (answer.status, answer.code) == (422, "project-needed")
    assert answer.json["hint"] == "Name one of: a, b."
    # where `default` is one of them it is meant, as it was before there were others
    assert server.call("PUT", "/api/v1/projects/default/members/ann", body).status == 200
    assert server.call("POST", "/api/v1/runs", asked, token=token).code == "no-node-matches"


def test_nobody_raises_their_own_rights(new_server: Callable[..., Server]) -> None:
    server = new_server()
    p = server.new_project("p")
    other = server.new_user("other-admin", role="admin")
    project_admin = server.new_user("pa", "project-admin", project=p)
    server.new_user("bob", project=p)

    def put(user: str, *roles: str, token: str = "") -> Any:
        path = f"/api/v1/projects/p/members/{user}"
        answer = server.call("PUT", path, {"roles": list(roles)}, token=token)
        return answer.status if answer.status == 200 else answer.code

    # a system admin who has no role in it gives none to themselves, but to others
    assert put("other-admin", "viewer", token=other) == "forbidden"
    assert put("bob", "operator", "terminal", token=other) == 200
    # a project admin gives what they have, takes what they could give, and no more
    assert put("pa", "project-admin", "terminal", token=project_admin) == "forbidden"
    assert put("bob", "viewer", "terminal", token=project_admin) == 200
    assert put("bob", "viewer", token=project_admin) == "forbidden"
    assert put("bob", "viewer", "terminal", "auditor", token=project_admin) == "forbidden"
    assert put("pa", "operator", token=project_admin) == 200  # lower is always possible
    assert put("pa", "project-admin", token=project_admin) == "forbidden"
    assert put("pa", "owner") == "bad-field"
    assert put("nobody-at-all", "viewer") == "not-found"
    # no user makes themselves a system admin
    assert (
        server.call("PATCH", "/api/v1/users/pa", {"role": "admin"}, token=project_admin).status
        == 403
    )
    assert server.call("PATCH", "/api/v1/users/pa", {"role": "admin"}, token=other).status == 200


def test_an_operator_drains_and_does_not_lock_out(new_server: Callable[..., Server]) -> None:
    server = new_server()
    server.add_node("n", os="linux")
    token = server.new_user("op", "operator")

    def patch(admin: str, token: str = token) -> Any:
        answer = server.call("PATCH", "/api/v1/nodes/n", {"admin": admin}, token=token)
        return answer.status if answer.status == 200 else answer.code

    assert [patch("draining"), patch("active"), patch("disabled")] == [200, 200, "forbidden"]
    assert patch("disabled", server.token) == 200
    assert patch("active") == "forbidden"  # what an admin locked out stays out


def test_the_last_system_admin_stays(new_server: Callable[..., Server]) -> None:
    server = new_server()
    for change in ({"disabled": True}, {"role": "user"}):
        answer = server.call("PATCH", "/api/v1/users/admin", change)
        assert (answer.status, answer.code) == (409, "last-admin")
    server.new_user("second", role="admin")
    assert server.call("PATCH", "/api/v1/users/admin", {"role": "user"}).status == 200
    assert server.call("GET", "/api/v1/users").status == 403


def test_a_project_is_deleted_only_when_it_is_empty(new_server: Callable[..., Server]) -> None:
    server = new_server()
    p = server.new_project("p")
    assert server.call("POST", "/api/v1/projects", {"name": "p"}).code == "name-taken"
    assert server.call("POST", "/api/v1/projects", {"name": "a b"}).code == "bad-spec"
    server.new_user("ann", "viewer", project=p)
    node = server.add_node("n", project=p)
    assert server.call("DELETE", "/api/v1/projects/p").code == "project-in-use"
    assert server.call("DELETE", "/api/v1/projects/default").code == "project-in-use"
    assert server.call("DELETE", f"/api/v1/nodes/{node}").status == 200
    secret = {"value": "of a project", "project": "p"}
    assert server.call("PUT", "/api/v1/secrets/one", secret).status == 201
    assert server.call("DELETE", "/api/v1/projects/p").code == "project-in-use"
    assert server.call("DELETE", "/api/v1/secrets/one?project=p").status == 204
    assert server.call("DELETE", "/api/v1/projects/p").status == 204
    assert server.call("DELETE", "/api/v1/projects/p").status == 404
    assert [one["name"] for one in server.call("GET", "/api/v1/projects").json["items"]] == [
        "default"
    ]


def test_a_token_is_narrowed(new_server: Callable[..., Server]) -> None:
    server = new_server()
    server.new_project("p")
    server.add_node("n", os="linux")

    def token(using: str = "", **scope: Any) -> Answer:
        return server.call("POST", "/api/v1/tokens", {"name": "t", **scope}, token=using)

    reader = token(permissions=["read"]).json
    assert (reader["permissions"], reader["project"]) == (["read"], None)
    call = server.call
    assert call("GET", "/api/v1/nodes", token=reader["token"]).status == 200
    assert call("POST", "/api/v1/runs", b"{}", token=reader["token"]).status == 403
    assert token(reader["token"]).status == 403  # it may not make tokens at all
    bound = token(project="p").json
    assert call("GET", "/api/v1/nodes", token=bound["token"]).json["items"] == []
    assert call("GET", "/api/v1/nodes/n", token=bound["token"]).status == 404
    assert call("GET", "/api/v1/users", token=bound["token"]).status == 403
    assert call("GET", "/api/v1/projects", token=bound["token"]).json["items"][0]["name"] == "p"
    # what it makes is no wider, and lasts no longer
    child = token(bound["token"]).json
    assert child["project"] == "p"
    assert child["expires_at"] == bound["expires_at"]
    assert token(bound["token"], project="default").status == 404
    both = token(permissions=["read", "manage-own-tokens"]).json["token"]
    assert token(both, permissions=["run"]).code == "forbidden"
    assert token(both).json["permissions"] == ["manage-own-tokens", "read"]
    assert token(permissions=["everything"]).code == "bad-spec"
    assert token(project="no-such").status == 404


def test_roles_that_another_has_changed_meanwhile_stay(new_server: Callable[..., Server]) -> None:
    server = new_server()
    p = server.new_project("p")
    server.new_user("bob", "viewer", project=p)
    path = "/api/v1/projects/p/members/bob"

    def put(roles: list[str], was: list[str]) -> Any:
        return server.call("PUT", path, {"roles": roles, "was": was})

    assert put(["viewer", "project-admin"], ["viewer"]).status == 200
    assert put(["viewer"], ["project-admin", "viewer"]).status == 200
    assert put(["viewer"], ["project-admin", "viewer"]).status == 200  # its answer was lost
    late = put(["operator", "project-admin", "viewer"], ["project-admin", "viewer"])
    assert (late.status, late.code, late.json["field"]) == (409, "roles-changed", "was")
    assert "now viewer" in late.json["detail"]
    assert server.call("GET", "/api/v1/projects/p/members").json["items"][-1]["roles"] == ["viewer"]
