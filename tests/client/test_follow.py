from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetwire.client import BadAnswer, Client, End, LogBytes, NotFound, ServerUnreachable
from fleetwire.client.follow import Event, Positions
from fleetwire.client.shapes import Part

if TYPE_CHECKING:
    from tests.client.conftest import Reply, ScriptedServer

A = "01900000-0000-7000-8000-00000000000a"


def log_event(offset: int, data: bytes, cursor: str | None = None) -> bytes:
    part = {
        "offset": offset,
        "stream": "stdout",
        "time": "",
        "length": len(data),
        "bytes": base64.b64encode(data).decode(),
    }
    value = {"attempt": A, "node": "n", "index": 0, "offset": offset, "parts": [part]}
    head = b"" if cursor is None else f"id: {cursor}\n".encode()
    return head + b"event: log\ndata: " + json.dumps(value).encode() + b"\n\n"


END = b"event: end\ndata: {}\n\n"


def text_of(events: Iterable[Event]) -> bytes:
    return b"".join(p.data for e in events if isinstance(e, LogBytes) for p in e.parts)


@given(
    st.binary(min_size=1, max_size=60),
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 60)), max_size=20),
)
def test_whatever_comes_again_each_byte_is_given_once(
    text: bytes, reads: list[tuple[int, int]]
) -> None:
    positions = Positions()
    given_bytes = b""
    for start, length in [*reads, (0, len(text))]:
        at = min(start, len(given_bytes))  # a stream never jumps beyond what was given
        chunk = text[at : at + length]
        half = len(chunk) // 2
        parts = [
            Part(at, "stdout", half, "", chunk[:half]),
            Part(at + half, "stderr", len(chunk) - half, "", chunk[half:]),
        ]
        fresh = positions.fresh(LogBytes(A, at, parts))
        if fresh is not None:
            assert fresh.offset == len(given_bytes)
            given_bytes += b"".join(part.data for part in fresh.parts)
    assert given_bytes == text


def test_a_gap_is_cut_like_bytes() -> None:
    positions = Positions()
    positions.fresh(LogBytes(A, 0, [Part(0, "gap", 10)]))
    fresh = positions.fresh(LogBytes(A, 5, [Part(5, "gap", 20), Part(25, "stdout", 2, "", b"ab")]))
    assert fresh is not None
    assert [(p.offset, p.length, p.data) for p in fresh.parts] == [(10, 15, b""), (25, 2, b"ab")]


def test_missing_is_the_range_before_an_event() -> None:
    positions = Positions()
    assert positions.missing(LogBytes(A, 4, [])) == (0, 4)
    positions.fresh(LogBytes(A, 0, [Part(0, "stdout", 4, "", b"abcd")]))
    assert positions.missing(LogBytes(A, 4, [])) is None


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_reconnect_point_gives_each_byte_once(
    server_factory: Callable[[], AbstractContextManager[ScriptedServer]], data: st.DataObject
) -> None:
    text = b"".join(b"line %d\n" % n for n in range(20))
    body = b"".join(log_event(n, text[n : n + 10], f"c{n}") for n in range(0, len(text), 10)) + END
    with server_factory() as server:
        cuts = data.draw(st.lists(st.integers(0, len(body) - 1), max_size=3))
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
        server.answers += [head + body[:cut] for cut in cuts] + [head + body]
        with Client(server.url, "t") as client:
            events = list(client.follow("r", patience=20))
    assert text_of(events) == text
    assert isinstance(events[-1], End)


def test_it_comes_back_with_the_last_cursor(server: ScriptedServer, streamed: Reply) -> None:
    server.answers += [
        streamed(log_event(0, b"one", "c1") + log_event(3, b"two")),
        None,
        streamed(log_event(3, b"two") + log_event(6, b"three") + END),
    ]
    told: list[str] = []
    with Client(server.url, "t", notify=told.append) as client:
        assert text_of(client.follow("r")) == b"onetwothree"
    assert [asked.headers.get("Last-Event-ID") for asked in server.asked] == [None, "c1", "c1"]
    assert told == ["The server is away, trying again.", ""]


def test_a_stream_that_jumps_is_filled_from_the_log(
    server: ScriptedServer, streamed: Reply, reply: Reply
) -> None:
    page = {
        "attempt": A,
        "offset": 0,
        "next_offset": 3,
        "parts": [
            {
                "offset": 0,
                "stream": "stdout",
                "time": "",
                "length": 3,
                "bytes": base64.b64encode(b"one").decode(),
            }
        ],
    }
    server.answers += [streamed(log_event(3, b"two") + END), reply(json.dumps(page).encode())]
    with Client(server.url, "t") as client:
        assert text_of(client.follow("r")) == b"onetwo"


def test_a_refusal_is_not_tried_again(server: ScriptedServer, reply: Reply) -> None:
    problem = b'{"title":"x","detail":"no such run","code":"not-found"}'
    server.answers.append(reply(problem, 404, "application/problem+json"))
    with Client(server.url, "t") as client, pytest.raises(NotFound, match="no such run"):
        list(client.follow("r"))
    assert len(server.asked) == 1


def test_patience_ends(server: ScriptedServer, streamed: Reply) -> None:
    server.answers += [streamed(log_event(0, b"one"))] + [None] * 100
    with Client(server.url, "t") as client, pytest.raises(ServerUnreachable, match="away"):
        list(client.follow("r", patience=0.2))


def test_who_never_reached_a_server_is_told_at_once() -> None:
    with Client("http://127.0.0.1:1", "t") as client, pytest.raises(ServerUnreachable):
        list(client.follow("r", patience=3600))


def test_waiting_makes_the_run_of_its_events_and_asks_no_more(
    server: ScriptedServer, streamed: Reply
) -> None:
    first = (
        b'event: run\ndata: {"id":"r1","state":"running"}\n\n'
        b'event: task\ndata: {"id":"t1","index":1,"attempt":"a1","state":"running"}\n\n'
        b'event: task\ndata: {"id":"t0","index":0,"attempt":"a0","state":"running"}\n\n'
    )
    last = (
        b'event: run\ndata: {"id":"r1","state":"ended","outcome":"failed"}\n\n'
        b'event: task\ndata: {"id":"t0","index":0,"attempt":"a2","state":"exited"}\n\n'
        b'event: task\ndata: {"id":"t1","index":1,"attempt":"a1","state":"lost"}\n\n'
        b'event: end\ndata: {"run":"r1"}\n\n'
    )
    server.answers += [streamed(first), streamed(last)]
    with Client(server.url, "t") as client:
        run = client.wait("r1")
    assert (run.state, run.outcome) == ("ended", "failed")
    assert run.tasks is not None
    assert [(task.attempt, task.state) for task in run.tasks] == [("a2", "exited"), ("a1", "lost")]
    assert len(server.asked) == 2


def test_an_end_without_a_run_is_said(server: ScriptedServer, streamed: Reply) -> None:
    server.answers += [streamed(b'event: end\ndata: {"run":"r1"}\n\n')]
    with Client(server.url, "t") as client, pytest.raises(BadAnswer, match="without the run"):
        client.wait("r1")
