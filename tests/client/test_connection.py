from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import pytest

from fleetwire.client import (
    AnswerLost,
    BadAnswer,
    Client,
    ClientError,
    Conflict,
    Gone,
    NoSuchNode,
    NotAllowed,
    NotLoggedIn,
    Problem,
    Rejected,
    RunRequest,
    Script,
    ServerFault,
    ServerUnreachable,
    fetch_ca,
)
from fleetwire.client.errors import problem_from

if TYPE_CHECKING:
    from tests.client.conftest import Reply, ScriptedServer

RUN = b'{"id":"r1","state":"pending"}'
ME = b'{"id":"u","name":"ann","role":"admin","via":"token"}'
REQUEST = RunRequest(spec=Script("true\n"), selector="os=linux")


def test_requests_share_one_connection_and_carry_the_token(
    server: ScriptedServer, reply: Reply
) -> None:
    server.answers += [reply(ME), reply(ME)]
    with Client(server.url, "secret") as client:
        assert client.me().name == "ann"
        first = client.connection._idle
        client.me()
        assert client.connection._idle is first
    assert server.asked[0].headers["Authorization"] == "Bearer secret"


def test_a_create_whose_answer_was_lost_is_repeated_with_the_same_key(
    server: ScriptedServer, reply: Reply
) -> None:
    server.answers += [None, None, reply(RUN, 200)]
    with Client(server.url, "t") as client:
        assert client.create_run(REQUEST).id == "r1"
    keys = {asked.headers["Idempotency-Key"] for asked in server.asked}
    assert len(server.asked) == 3
    assert len(keys) == 1
    assert len({asked.body for asked in server.asked}) == 1


def test_two_creates_have_two_keys(server: ScriptedServer, reply: Reply) -> None:
    server.answers += [reply(RUN, 201), reply(RUN, 201)]
    with Client(server.url, "t") as client:
        client.create_run(REQUEST)
        client.create_run(REQUEST)
    assert server.asked[0].headers["Idempotency-Key"] != server.asked[1].headers["Idempotency-Key"]


def test_what_may_not_be_repeated_is_not(server: ScriptedServer) -> None:
    server.answers += [None]
    with Client(server.url, "t") as client, pytest.raises(AnswerLost, match="may have been done"):
        client.create_token("ci")
    assert len(server.asked) == 1


def test_a_server_that_is_starting_is_waited_for(server: ScriptedServer, reply: Reply) -> None:
    away = reply(b'{"detail":"starting","code":"not-ready"}', 503, "application/problem+json")
    server.answers += [away, away, reply(ME)]
    with Client(server.url, "t") as client:
        assert client.me().name == "ann"


def test_a_closed_idle_connection_is_replaced(server: ScriptedServer, reply: Reply) -> None:
    closing = reply(ME)
    server.answers += [closing, None, reply(ME)]
    with Client(server.url, "t", patience=5) as client:
        client.me()
        assert client.me().name == "ann"


def test_nobody_there_is_said_at_once() -> None:
    with (
        Client("http://127.0.0.1:1", patience=3600) as client,
        pytest.raises(ServerUnreachable, match="connection refused") as failure,
    ):
        client.me()
    assert "fleetwire up" in failure.value.hint


@pytest.mark.parametrize("url", ["", "localhost:8080", "ftp://x", "http://", "http://h:port"])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(ClientError, match="not the URL"):
        Client(url)


def test_a_web_page_is_not_taken_for_an_answer(server: ScriptedServer, reply: Reply) -> None:
    server.answers += [reply(b"<html>", 200, "text/html")]
    with Client(server.url, "t") as client, pytest.raises(BadAnswer, match="web page"):
        client.me()


def test_login_keeps_the_cookie_and_sends_its_origin(server: ScriptedServer, reply: Reply) -> None:
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        b"Set-Cookie: fleetwire_session=s3; HttpOnly; SameSite=Strict\r\nContent-Length: "
    )
    body = b'{"user":{"id":"u","name":"ann","role":"admin"},"csrf":"c7"}'
    server.answers += [
        head + str(len(body)).encode() + b"\r\n\r\n" + body,
        reply(b'{"id":"k","name":"cli","token":"fw_x"}', 201),
    ]
    with Client(server.url) as client:
        client.login("ann", "pw")
        assert client.create_token("cli").token == "fw_x"
    assert server.asked[1].headers["Cookie"] == "fleetwire_session=s3"
    assert server.asked[1].headers["Origin"] == server.url
    assert server.asked[1].headers["X-CSRF-Token"] == "c7"


def test_lists_are_read_to_their_end(server: ScriptedServer, reply: Reply) -> None:
    server.answers += [
        reply(b'{"items":[{"id":"1","name":"a","link":"online"}],"next_cursor":"x y"}'),
        reply(b'{"items":[{"id":"2","name":"b","link":"offline"}],"next_cursor":null}'),
    ]
    with Client(server.url, "t") as client:
        assert [node.name for node in client.nodes()] == ["a", "b"]
    assert server.asked[1].path == "/api/v1/nodes?cursor=x+y"


def test_a_raw_log_cut_in_the_middle_is_completed(server: ScriptedServer) -> None:
    data = bytes(range(256)) * 40

    def head(length: int) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length

    # A server that dies closes the connection: the fake does by an answer without a length.
    server.answers += [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n" + data[:5]]
    server.answers += [head(len(data)) + data]
    with Client(server.url, "t") as client:
        assert b"".join(client.raw_log("a")) == data
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "unauthenticated", NotLoggedIn),
        (403, "forbidden", NotAllowed),
        (409, "idempotency-key-reused", Conflict),
        (410, "gone", Gone),
        (422, "bad-selector", Rejected),
        (422, "no-node-matches", NoSuchNode),
        (500, "internal", ServerFault),
    ],
)
def test_problem_documents_become_their_class(status: int, code: str, kind: type[Problem]) -> None:
    document = {"title": "T", "detail": "D.", "code": code, "hint": "H.", "labels": {"os": ["x"]}}
    problem = problem_from(status, "application/problem+json", json.dumps(document).encode())
    assert type(problem) is kind
    assert (problem.detail, problem.hint, problem.code) == ("D.", "H.", code)
    if isinstance(problem, NoSuchNode):
        assert problem.labels == {"os": ["x"]}


@pytest.mark.parametrize(
    "body", [b"", b"<html>gateway</html>", b"\xff\xfe", b'{"detail": 3}', b"[]"]
)
def test_any_body_of_an_error_is_survived(body: bytes) -> None:
    for kind in ("application/problem+json", "text/html", ""):
        problem = problem_from(502, kind, body)
        assert isinstance(problem, ServerFault)
        assert "502" in problem.detail


@pytest.mark.parametrize("url", ["http://[::1", "http://h:99999", "ftp://h", "", "http://"])
def test_what_is_no_url_is_said(url: str) -> None:
    with pytest.raises(ClientError, match="is not the URL of a server"):
        Client(url)


def test_a_url_holds_no_password() -> None:
    with pytest.raises(ClientError, match="login URL --username") as caught:
        Client("https://ann:hunter2-hunter2@fleet.example")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("token", ["", "a b", "secret\r\nX: y", "sécret"])
def test_a_token_that_no_header_can_carry_is_said(token: str) -> None:
    with pytest.raises(ClientError, match="characters that no token has"):
        Client("http://127.0.0.1:1", token)


@pytest.mark.parametrize("typed", ["../me", "\x1b[31m\u202e", "a b\r\nX: y", "\udcff", "?a=b#c"])
def test_what_a_person_typed_stays_one_segment(
    server: ScriptedServer, reply: Reply, typed: str
) -> None:
    server.answers += [reply(b"{}")]
    with Client(server.url, "secret") as client:
        client.get_raw("runs", typed, "why")
    segments = server.asked[0].path.split("/")
    assert (segments[:4], segments[5:]) == (["", "api", "v1", "runs"], ["why"])
    assert segments[4].isascii()
    assert segments[4].isprintable()
    assert "?" not in segments[4]


def test_a_stream_that_was_read_to_its_end_leaves_its_connection(
    server: ScriptedServer, reply: Reply
) -> None:
    end = b"event: run\ndata: " + RUN + b'\n\nevent: end\ndata: {"run":"r1"}\n\n'
    server.answers += [reply(RUN, 201), reply(end, kind="text/event-stream"), reply(RUN, 201)]
    with Client(server.url, "t") as client:
        client.create_run(REQUEST)
        kept = client.connection._idle
        assert client.wait("r1").id == "r1"
        assert client.connection._idle is kept
        client.create_run(REQUEST)
        assert client.connection._idle is kept
    assert len(server.asked) == 3


def test_a_stream_that_was_left_is_closed(server: ScriptedServer, reply: Reply) -> None:
    log = b"x" * 1000
    server.answers += [reply(log, kind="application/octet-stream"), reply(ME)]
    with Client(server.url, "t") as client:
        for _ in client.raw_log("a"):
            break
        assert client.me().name == "ann"


def test_a_ca_is_asked_for_by_https_however_that_is_written() -> None:
    pin = f"sha256:{'ab' * 32}"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(ServerUnreachable):
        fetch_ca(f"HTTPS://{place}", pin)
    with pytest.raises(ClientError, match="plain HTTP"):
        fetch_ca(f"HTTP://{place}", pin)
