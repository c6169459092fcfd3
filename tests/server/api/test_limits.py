"""Limits of the front door and of what comes before it, each at itself and one above."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import pytest

from fleetwire.core import limits
from fleetwire.server.api import http
from fleetwire.server.api.front import URL_BYTES

if TYPE_CHECKING:
    from tests.server.api.conftest import Server

HEAD = b"POST /api/v1/runs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def send_until_cut(connection: socket.socket, data: bytes) -> int:
    """Send for ever; return how much fitted into the sockets' buffers before the server cut it."""
    sent = 0
    try:
        while sent < 1 << 28:
            connection.sendall(data)
            sent += len(data)
    except OSError:
        return sent
    raise AssertionError("the server reads for ever")


def padded(size: int) -> bytes:
    return b'{"x":"' + b"a" * (size - 8) + b'"}'


@pytest.mark.limit("body_bytes")
def test_body_at_the_limit_and_one_above(server: Server) -> None:
    at = server.call("POST", "/api/v1/runs", padded(limits.BODY_BYTES))
    assert (at.status, at.json["field"]) == (422, "spec")  # it was read and understood
    above = server.call("POST", "/api/v1/runs", padded(limits.BODY_BYTES + 1))
    assert (above.status, above.code) == (413, "body-too-large")


@pytest.mark.limit("body_bytes")
def test_chunked_body_at_the_limit_and_one_above(server: Server) -> None:
    token = f"Authorization: Bearer {server.token}\r\n".encode()

    def chunked(size: int) -> bytes:
        body = padded(size)
        parts = [body[at : at + 100_000] for at in range(0, size, 100_000)]
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
        head = HEAD + token + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        return server.raw(head + chunks + b"0\r\n\r\n")

    assert chunked(limits.BODY_BYTES).startswith(b"HTTP/1.1 422 ")
    assert chunked(limits.BODY_BYTES + 1).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_is_declared_too_large_is_refused_before_it_comes(server: Server) -> None:
    answer = server.raw(HEAD + b"Content-Length: 1099511627776\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"body-too-large" in answer


def test_a_body_that_never_ends_is_cut(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        token = f"Authorization: Bearer {server.token}\r\n".encode()
        connection.sendall(HEAD + token + b"Transfer-Encoding: chunked\r\n\r\n")
        assert send_until_cut(connection, b"10000\r\n" + b"[" * 0x10000 + b"\r\n") < 1 << 26


@pytest.mark.limit("url_bytes")
def test_url_at_the_limit_and_one_above(server: Server) -> None:
    path = "/api/v1/nodes/"
    at = server.call("GET", path + "a" * (URL_BYTES - len(path)))
    assert at.code == "not-found"
    above = server.call("GET", path + "a" * (URL_BYTES - len(path) + 1))
    assert (above.status, above.code) == (414, "url-too-long")


@pytest.mark.limit("head_bytes")
def test_headers_at_the_limit_and_one_above(server: Server) -> None:
    def ask(size: int) -> bytes:
        start = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: "
        fixed = len(b"/healthz") + sum(
            len(name) + len(value) + 4
            for name, value in ((b"Host", b"localhost"), (b"Connection", b"close"), (b"X", b""))
        )
        return server.raw(start + b"a" * (size - fixed) + b"\r\n\r\n")

    assert ask(http.HEAD_BYTES).startswith(b"HTTP/1.1 200 ")
    above = ask(http.HEAD_BYTES + 1)
    assert above.startswith(b"HTTP/1.1 431 ")
    assert b"headers-too-large" in above


def test_headers_without_end_are_cut(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
        assert send_until_cut(connection, b"a" * 65536) < 1 << 26


def test_a_head_that_does_not_come_is_given_up(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "HEAD_S", 0.2)
    began = time.monotonic()
    for opening in (b"", b"GET /healthz HTTP/1.1\r\nHo"):
        assert server.raw(opening) == b""
    assert time.monotonic() - began < 10


def test_what_is_no_http_is_answered_by_a_problem(server: Server) -> None:
    answer = server.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")  # a TLS hello
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in answer
    assert b"bad-request" in answer


@pytest.mark.parametrize(
    "smuggled",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 5x\r\n",
        b"Transfer-Encoding: xchunked\r\n",
    ],
)
def test_ambiguous_lengths_are_refused(server: Server, smuggled: bytes) -> None:
    answer = server.raw(HEAD + smuggled + b"\r\n0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 4"), answer
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.limit("idempotency_key_chars")
def test_idempotency_key_at_the_limit(server: Server) -> None:
    body = {"spec": {"kind": "ping"}, "selector": "no=such"}
    headers = {"Idempotency-Key": "x" * limits.IDEMPOTENCY_KEY_CHARS}
    assert server.call("POST", "/api/v1/runs", body, headers=headers).code == "no-node-matches"


@pytest.mark.limit("page_items")
def test_page_at_the_limit(server: Server) -> None:
    assert server.call("GET", f"/api/v1/runs?limit={limits.PAGE_ITEMS}").status == 200
    assert server.call("GET", f"/api/v1/runs?limit={limits.PAGE_ITEMS + 1}").status == 422


@pytest.mark.limit("script_bytes")
def test_script_at_the_limit_and_one_above(server: Server) -> None:
    def code(size: int) -> str:
        spec = {"kind": "script", "script": "#" * size}
        return server.call("POST", "/api/v1/runs", {"spec": spec, "selector": "no=such"}).code

    assert code(limits.SCRIPT_BYTES) == "no-node-matches"
    assert code(limits.SCRIPT_BYTES + 1) == "limit-exceeded"


@pytest.fixture(scope="module")
def fleet(server: Server) -> Server:
    server.add_node("limits-a")
    return server


@pytest.fixture(scope="module")
def log(fleet: Server) -> str:
    attempt = fleet.submit(nodes=["limits-a"])["tasks"][0]["attempt"]
    fleet.append(attempt, b"one\ntwo\n")
    return f"/api/v1/attempts/{attempt}/log"


@pytest.mark.limit("log_read_bytes")
def test_log_bytes_at_the_limit_and_one_above(fleet: Server, log: str) -> None:
    assert fleet.call("GET", f"{log}?limit={limits.LOG_READ_BYTES}").status == 200
    assert fleet.call("GET", f"{log}?limit={limits.LOG_READ_BYTES + 1}").json["field"] == "limit"


@pytest.mark.limit("log_lines")
def test_log_lines_at_the_limit_and_one_above(fleet: Server, log: str) -> None:
    for name in ("lines", "tail"):
        assert fleet.call("GET", f"{log}?{name}={limits.LOG_LINES}").status == 200
        assert fleet.call("GET", f"{log}?{name}={limits.LOG_LINES + 1}").json["field"] == name


@pytest.mark.limit("log_search_chars")
def test_search_text_at_the_limit_and_one_above(fleet: Server, log: str) -> None:
    at = "x" * limits.LOG_SEARCH_CHARS
    assert fleet.call("GET", f"{log}/search?q={at}").status == 200
    assert fleet.call("GET", f"{log}/search?q={at}x").json["field"] == "q"


@pytest.mark.limit("log_line_shown_bytes")
def test_long_lines_are_cut_and_say_so(fleet: Server) -> None:
    attempt = fleet.submit(nodes=["limits-a"])["tasks"][0]["attempt"]
    size = limits.LOG_LINE_SHOWN_BYTES
    fleet.append(attempt, b"a" * size + b"\n" + b"b" * (size + 1) + b"\n")
    lines = fleet.call("GET", f"/api/v1/attempts/{attempt}/log?line=0").json["lines"]
    assert [(len(line["text"]), line["cut"]) for line in lines] == [(size, False), (size, True)]
