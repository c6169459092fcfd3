"""What a browser is told, and how long a slow client may hold what it holds."""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
import time
from typing import TYPE_CHECKING

import psutil
import pytest
from tests.server.api.test_origin import FOREIGN

from fleetwire.core import limits
from fleetwire.server.api import http as bounded
from fleetwire.server.api.front import SECURITY_HEADERS
from fleetwire.server.api.pages import policy
from fleetwire.server.api.routes import DOORS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.server.api.conftest import Server


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_pages_inline_style_is_of_that_very_answer(server: Server, path: str) -> None:
    nonces = set()
    for _ in range(2):
        answer = server.call("GET", path, token=None)
        (nonce,) = re.findall(r"'nonce-([^']+)'", str(answer.headers["content-security-policy"]))
        assert answer.headers["content-security-policy"] == policy(nonce)
        assert nonce in answer.body.decode()
        assert "style=" not in answer.body.decode()
        nonces.add(nonce)
    assert len(nonces) == 2


def test_the_policy_takes_nothing_inline_and_nothing_from_elsewhere() -> None:
    for text in (policy(), policy("x" * 22)):
        assert "unsafe" not in text
        assert "http" not in text
        assert "*" not in text
        assert "frame-ancestors 'none'" in text
    assert "nonce" not in SECURITY_HEADERS["content-security-policy"]


def begin_post(server: Server, body: bytes, *, length: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    headers = [f"Content-Length: {length}", "Content-Type: application/json"]
    connection.sendall(server.head("/api/v1/tokens", "POST", *headers) + body)
    return connection


@pytest.mark.slow
def test_a_body_that_trickles_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it has its time, however often a byte comes."""
    monkeypatch.setattr(limits, "BODY_WITHIN_S", 1.0)
    began = time.monotonic()
    with begin_post(server, b'{"name"', length=1000) as connection:
        connection.settimeout(0.1)
        answer = b""
        while b"\r\n\r\n" not in answer:
            assert time.monotonic() - began < 10
            connection.sendall(b" ")
            try:
                answer += connection.recv(65536)
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"body-too-slow"' in answer
        assert b"connection: close" in answer.lower()
    assert time.monotonic() - began > 0.9


@pytest.mark.slow
def test_a_body_within_its_time_is_taken(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_WITHIN_S", 5.0)
    text = b'{"name": "slow but whole"}'
    with begin_post(server, b"", length=len(text)) as connection:
        for at in range(len(text)):
            connection.sendall(text[at : at + 1])
        assert connection.recv(65536).startswith(b"HTTP/1.1 201 ")


@pytest.mark.slow
def test_rights_that_end_while_a_body_comes_are_not_used(new_server: Callable[..., Server]) -> None:
    server = new_server()
    token = server.new_user("bob", "operator")
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        text = b'{"name": "mine"}'
        connection.sendall(
            f"POST /api/v1/tokens HTTP/1.1\r\nHost: {server.host}\r\nContent-Type: application/json"
            f"\r\nContent-Length: {len(text)}\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
            + text[:5]
        )
        until = time.monotonic() + 1.2  # longer than what counts as quick
        assert server.call("PATCH", "/api/v1/users/bob", {"disabled": True}).status == 200
        server.wait(lambda: time.monotonic() > until)
        connection.sendall(text[5:])
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")


@pytest.mark.slow
def test_a_reader_that_takes_nothing_is_cut_off(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "TAKEN_S", 1.0)
    server.add_node("taken", os="linux")
    attempt = server.submit(nodes=["taken"])["tasks"][0]["attempt"]
    server.append(attempt, b"x" * (32 << 20))
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(server.head(f"/api/v1/attempts/{attempt}/log/raw"))
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        until = time.monotonic() + 2.5
        server.wait(lambda: time.monotonic() > until)
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while more := connection.recv(1 << 20):
                received += len(more)
        assert received < 32 << 20


@pytest.mark.slow
@pytest.mark.parametrize("late", [False, True])
def test_a_server_that_leaves_keeps_no_connection(
    new_server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    server = new_server()
    where = ("127.0.0.1", server.port)
    if late:  # as to one that is accepted while it leaves, nobody says that it is to end
        monkeypatch.setattr(bounded.BoundedHttp, "shutdown", lambda _: None)
    with (
        socket.create_connection(where) as trickling,
        socket.create_connection(where) as waiting,
    ):
        trickling.sendall(server.head("/api/v1/tokens", "POST", "Content-Length: 100"))
        waiting.sendall(server.head("/healthz"))
        assert waiting.recv(1000).startswith(b"HTTP/1.1 200 ")
        server.stop()
        for found in psutil.Process().net_connections("tcp"):
            assert found.laddr != where, found


def test_a_stream_by_cookie_from_elsewhere_is_refused(server: Server) -> None:
    server.add_node("streamed", os="linux")
    run = server.submit(nodes=["streamed"])
    attempt = run["tasks"][0]["attempt"]
    streams = {door.path for door in DOORS if door.path.endswith(("/events", "/stream"))}
    streams -= {"/api/v1/nodes/{node}/events"}  # a list
    assert streams == {"/api/v1/runs/{run}/events", "/api/v1/attempts/{attempt}/log/stream"}
    cookie = {"Cookie": server.login()["Cookie"]}
    for path, origin in itertools.product(streams, (*FOREIGN, None)):
        told = {} if origin is None else {"Origin": origin.format(host=server.host)}
        place = path.format(run=run["id"], attempt=attempt)
        answer = server.call("GET", place, headers=cookie | told, token=None)
        assert (answer.status, answer.code) == (403, "bad-origin"), (path, origin)
