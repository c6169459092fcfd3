"""Users as system admins manage them, and how soon somebody is out."""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from tests.databases import Databases
from tests.server.api.conftest import Events, Server

from fleetwire.core import limits

if TYPE_CHECKING:
    from tests.server.api.conftest import Answer

OUT_WITHIN_S = 5.0


def login(server: Server, name: str, password: str) -> Answer:
    body = {"username": name, "password": password}
    return server.call("POST", "/api/v1/login", body, token=None)


def test_a_user_from_making_to_disabling(new_server: Callable[..., Server]) -> None:
    server = new_server()
    made = server.call("POST", "/api/v1/users", {"name": "ann"})
    assert made.status == 201
    password = made.json["password"]
    assert len(password) >= 20
    assert (made.json["role"], made.json["disabled"], made.json["has_password"]) == (
        "user", False, True,
    )  # fmt: skip
    assert login(server, "ann", password).status == 200
    assert server.call("POST", "/api/v1/users", {"name": "ann"}).code == "name-taken"
    assert server.call("POST", "/api/v1/users", {"name": "a/b"}).code == "bad-spec"
    listed = server.call("GET", "/api/v1/users?limit=1").json
    assert [one["name"] for one in listed["items"]] == ["admin"]
    rest = server.call("GET", f"/api/v1/users?cursor={listed['next_cursor']}").json
    assert [one["name"] for one in rest["items"]] == ["ann"]
    assert password not in str(rest)
    shown = server.call("GET", "/api/v1/users/ann").json
    assert shown["projects"] == []
    # a new password puts out who had the old one
    other = server.call("POST", "/api/v1/users/ann/password", {"password": "a new one, long"})
    assert other.json["password"] is None
    assert login(server, "ann", password).status == 401
    assert login(server, "ann", "a new one, long").status == 200
    assert server.call("PATCH", "/api/v1/users/ann", {"disabled": True}).json["disabled"]
    assert login(server, "ann", "a new one, long").code == "bad-credentials"
    assert not server.call("PATCH", "/api/v1/users/ann", {"disabled": False}).json["disabled"]
    assert login(server, "ann", "a new one, long").status == 200
    assert server.call("PATCH", "/api/v1/users/eve", {"disabled": True}).status == 404


@pytest.mark.limit("password_least_chars")
@pytest.mark.limit("password_chars")
def test_lengths_of_a_password(server: Server) -> None:
    def status(password: str) -> int:
        body = {"password": password}
        return server.call("POST", "/api/v1/users/admin-not-here/password", body).status

    least, most = limits.PASSWORD_LEAST_CHARS, limits.PASSWORD_CHARS
    assert [status("x" * length) for length in (least, most)] == [404, 404]
    assert [status("x" * length) for length in (least - 1, most + 1)] == [422, 422]


# -- out within five seconds -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(
    tmp_path_factory: pytest.TempPathFactory, databases: Databases
) -> Iterator[tuple[Server, Server]]:
    """Two server processes over one database: what one ends the other must notice."""
    data = tmp_path_factory.mktemp("pair") / "data"
    with databases.ready(data) as database, contextlib.ExitStack() as stack:
        first, second = Server(data, database=database), Server(data, database=database)
        for one in (first, second):
            one.start()
            stack.callback(one.stop)
        first.add_node("n", os="linux")
        yield first, second


def disable(server: Server, name: str, token: str) -> None:
    del token
    assert server.call("PATCH", f"/api/v1/users/{name}", {"disabled": True}).status == 200


def take_roles(server: Server, name: str, token: str) -> None:
    del token
    path = f"/api/v1/projects/default/members/{name}"
    assert server.call("PUT", path, {"roles": []}).status == 200


def delete_token(server: Server, name: str, token: str) -> None:
    del name
    (mine,) = server.call("GET", "/api/v1/tokens", token=token).json["items"]
    assert server.call("DELETE", f"/api/v1/tokens/{mine['id']}", token=token).status == 204


@pytest.mark.slow
@pytest.mark.parametrize("end", [disable, take_roles, delete_token])
def test_who_is_out_is_out_everywhere_within_five_seconds(
    pair: tuple[Server, Server], end: Callable[[Server, str, str], None]
) -> None:
    """Requests, run streams and log streams, in the process that is asked and in another one."""
    first, second = pair
    name = end.__name__.replace("_", "-")
    token = first.new_user(name, "operator")
    run = first.submit(nodes=["n"])
    attempt = run["tasks"][0]["attempt"]
    opened: list[Events] = []
    for server in pair:
        for path in (f"runs/{run['id']}/events", f"attempts/{attempt}/log/stream"):
            stream = Events(server, f"/api/v1/{path}", Authorization=f"Bearer {token}")
            assert stream.status == 200
            opened.append(stream)
        assert server.call("GET", "/api/v1/nodes", token=token).status == 200
    began = time.monotonic()
    end(first, name, token)
    for stream in opened:
        for kind, _ in stream:
            assert kind != "end"
        assert time.monotonic() - began < OUT_WITHIN_S
        stream.close()
    for server in pair:
        assert server.call("GET", "/api/v1/nodes", token=token).status in {401, 403}
    del second


@pytest.mark.slow
def test_a_download_is_cut_when_its_reader_is_out(pair: tuple[Server, Server]) -> None:
    """And nobody can take what came of it for the whole."""
    first, second = pair
    token = first.new_user("reader", "viewer")
    attempt = first.submit(nodes=["n"])["tasks"][0]["attempt"]
    first.append(attempt, b"x" * (48 << 20))
    connection = http.client.HTTPConnection("127.0.0.1", second.port, timeout=30)
    path = f"/api/v1/attempts/{attempt}/log/raw"
    connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
    response = connection.getresponse()
    assert response.status == 200
    assert "attachment" in str(response.headers["content-disposition"])
    assert response.read(1 << 20)
    disable(first, "reader", token)
    first.wait(lambda: second.call("GET", "/api/v1/me", token=token).status == 401)
    deadline = time.monotonic() + OUT_WITHIN_S
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        response.read()
    assert time.monotonic() < deadline
    connection.close()
