from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetwire.client.http1 import (
    HEAD_BYTES,
    Answering,
    BadHttp,
    Cut,
    Disconnected,
    Headers,
    Place,
    Wire,
)


class FakeSocket:
    """Gives bytes in the pieces it was told, then the end; keeps what was sent."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = [piece for piece in pieces if piece]
        self.sent = b""

    def settimeout(self, seconds: float) -> None:
        assert seconds > 0

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def recv(self, most: int) -> bytes:
        if not self.pieces:
            return b""
        first = self.pieces.pop(0)
        if len(first) > most:
            self.pieces.insert(0, first[most:])
        return first[:most]


def ask(*pieces: bytes, method: str = "GET") -> Answering:
    wire = Wire(cast("socket.socket", FakeSocket(list(pieces))), "h")
    return wire.ask(method, "/", {}, None, timeout=1)


def by_length(blocks: list[bytes]) -> bytes:
    body = b"".join(blocks)
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def by_chunks(blocks: list[bytes]) -> bytes:
    chunks = b"".join(b"%x;note=1\r\n%s\r\n" % (len(one), one) for one in blocks if one)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s0\r\nA: b\r\n\r\n" % chunks


def to_the_end(blocks: list[bytes]) -> bytes:
    return b"HTTP/1.1 200 OK\r\n\r\n" + b"".join(blocks)


def pieces_of(text: bytes, cuts: list[int]) -> Iterator[bytes]:
    before = 0
    for cut in sorted({min(cut, len(text)) for cut in cuts}):
        yield text[before:cut]
        before = cut
    yield text[before:]


blocks = st.lists(st.binary(max_size=40), max_size=6)
cuts = st.lists(st.integers(0, 400), max_size=12)


@pytest.mark.parametrize("framed", [by_length, by_chunks, to_the_end])
@given(blocks, cuts, st.integers(1, 50))
def test_any_split_gives_the_same_body(
    framed: Callable[[list[bytes]], bytes], blocks: list[bytes], cuts: list[int], most: int
) -> None:
    answer = ask(*pieces_of(framed(blocks), cuts))
    body = b""
    while block := answer.read1(most):
        assert len(block) <= most
        body += block
    assert body == b"".join(blocks)
    assert answer.is_whole
    assert answer.keeps == (framed is not to_the_end)


@pytest.mark.parametrize("framed", [by_length, by_chunks])
@given(blocks, st.integers(1, 500))
def test_an_answer_that_is_cut_is_never_whole(
    framed: Callable[[list[bytes]], bytes], blocks: list[bytes], missing: int
) -> None:
    text = framed(blocks)
    cut = text[: max(0, len(text) - missing)]
    with pytest.raises((Cut, Disconnected)):
        ask(cut).read(1 << 20)


def test_two_answers_may_come_in_one_piece() -> None:
    fake = FakeSocket([by_length([b"one"]) + by_chunks([b"two"])])
    wire = Wire(cast("socket.socket", fake), "h:1")
    assert wire.ask("POST", "/a", {"X": "y"}, b"body", timeout=1).read(10) == b"one"
    assert wire.ask("GET", "/b", {}, None, timeout=1).read(10) == b"two"
    assert fake.sent == (
        b"POST /a HTTP/1.1\r\nHost: h:1\r\nAccept-Encoding: identity\r\nX: y\r\n"
        b"Content-Length: 4\r\n\r\nbody"
        b"GET /b HTTP/1.1\r\nHost: h:1\r\nAccept-Encoding: identity\r\n\r\n"
    )


def test_an_interim_answer_is_passed_over() -> None:
    answer = ask(b"HTTP/1.1 100 Continue\r\n\r\n" + by_length([b"x"]))
    assert (answer.status, answer.read(10)) == (200, b"x")


@pytest.mark.parametrize("head", [b"HTTP/1.1 204 No Content\r\n\r\n", by_length([])])
def test_an_answer_without_a_body_is_whole_at_once(head: bytes) -> None:
    answer = ask(head + b"HTTP/1.1 200 next")
    assert (answer.is_whole, answer.keeps, answer.read1(10)) == (True, True, b"")


def test_the_answer_to_head_has_no_body() -> None:
    answer = ask(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", method="HEAD")
    assert (answer.is_whole, answer.read(10)) == (True, b"")


@pytest.mark.parametrize("head", [b"HTTP/1.0 200 OK", b"HTTP/1.1 200 OK\r\nConnection: close"])
def test_a_connection_that_will_be_closed_is_not_kept(head: bytes) -> None:
    assert not ask(head + b"\r\nContent-Length: 0\r\n\r\n").keeps


@pytest.mark.parametrize(
    "text",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * HEAD_BYTES,
        b"HTTP/1.1 200 OK\r\n" + b"A: bcdefgh\r\n" * HEAD_BYTES,
    ],
)
def test_what_is_not_http_is_said(text: bytes) -> None:
    with pytest.raises(BadHttp) as failure:
        ask(text).read(100)
    assert not isinstance(failure.value, Cut)


@pytest.mark.parametrize("target", ["/a b", "/a\r\nX: y", ""])
def test_a_target_that_would_be_another_request_is_not_sent(target: str) -> None:
    fake = FakeSocket([by_length([])])
    wire = Wire(cast("socket.socket", fake), "h")
    with pytest.raises(BadHttp):
        wire.ask("GET", target, {}, None, timeout=1)
    with pytest.raises(BadHttp):
        wire.ask("GET", "/", {"Last-Event-ID": "1\nX: y"}, None, timeout=1)
    assert fake.sent == b""


def test_headers_are_found_whatever_their_case() -> None:
    headers = Headers([("set-cookie", "a"), ("set-cookie", "b"), ("content-type", "A/b; c=d")])
    assert headers.get_all("Set-Cookie") == ["a", "b"]
    assert (headers.get("SET-COOKIE"), headers.get("date")) == ("a", None)
    assert headers.media_type() == "a/b"
    assert Headers([]).media_type() == "text/plain"


@pytest.mark.parametrize(
    ("place", "header"),
    [
        (Place("h", None, tls=False), "h"),
        (Place("h", 80, tls=False), "h"),
        (Place("h", 80, tls=True), "h:80"),
        (Place("::1", 8080, tls=False), "[::1]:8080"),
        (Place("b\u00fccher.example", 443, tls=True), "xn--bcher-kva.example"),
    ],
)
def test_the_host_is_named_as_browsers_do(place: Place, header: str) -> None:
    assert place.header() == header
