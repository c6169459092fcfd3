"""Streams: live, resumed, over a restart, slow readers, and their end."""

from __future__ import annotations

import asyncio
import base64
import time
from typing import TYPE_CHECKING, Any

import pytest

from fleetwire.server.api import follow, parts, streams
from fleetwire.server.api.streams import EventWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.server.api.conftest import Events, Server


class Reader:
    """What a client does: it puts together the bytes of each attempt, and drops what it has."""

    def __init__(self) -> None:
        self.logs: dict[str, bytes] = {}
        self.run: dict[str, Any] = {}
        self.tasks: dict[int, dict[str, Any]] = {}
        self.repeated = 0
        self.names: list[str] = []

    def take(self, events: Iterator[tuple[str, Any]], *, until: Callable[[Reader], bool]) -> None:
        for name, data in events:
            self.names.append(name)
            if name == "run":
                self.run = data
            elif name == "task":
                self.tasks[data["index"]] = data
            elif name == "log":
                self._log(data)
            if until(self):
                return
        raise AssertionError(f"the stream ended too early: {self.names[-5:]}")

    def _log(self, data: dict[str, Any]) -> None:
        had = self.logs.setdefault(data["attempt"], b"")
        offset = data["offset"]
        assert offset <= len(had), "a hole"
        body = b"".join(base64.b64decode(part["bytes"]) for part in data["parts"])
        self.repeated += min(len(body), len(had) - offset)
        self.logs[data["attempt"]] = had + body[len(had) - offset :]

    @property
    def has_ended(self) -> bool:
        return bool(self.names) and self.names[-1] == "end"


@pytest.fixture
def fleet(new_server: Callable[..., Server]) -> Server:
    server = new_server()
    server.add_node("a", os="linux")
    server.add_node("b", os="linux")
    return server


@pytest.fixture
def open_events() -> Iterator[Callable[..., Events]]:
    opened: list[Events] = []

    def open_(server: Server, path: str, **more: str) -> Events:
        opened.append(server.events(path, **more))
        return opened[-1]

    yield open_
    for events in opened:
        events.close()


def test_a_run_from_submit_to_end(fleet: Server, open_events: Callable[..., Events]) -> None:
    run = fleet.submit(selector="os=linux")
    first, second = (task["attempt"] for task in run["tasks"])
    events = open_events(fleet, f"/api/v1/runs/{run['id']}/events?logs=1")
    assert events.status == 200
    assert events.response.headers["content-type"].startswith("text/event-stream")
    assert events.response.headers["cache-control"] == "no-store"
    reader = Reader()
    stream = iter(events)
    reader.take(stream, until=lambda r: len(r.tasks) == 2)
    assert "tasks" not in reader.run
    assert reader.run["id"] == run["id"]
    fleet.append(first, b"hello\n")
    reader.take(stream, until=lambda r: r.logs.get(first) == b"hello\n")
    fleet.append(second, b"world\n", stream=2)
    reader.take(stream, until=lambda r: r.logs.get(second) == b"world\n")
    fleet.end(run["id"])
    reader.take(stream, until=lambda r: r.has_ended)
    assert reader.run["state"] == "ended"
    assert reader.tasks[1]["log"]["complete"]
    assert list(stream) == []  # the stream closes after it
    assert events.last_id


def test_events_without_logs(fleet: Server, open_events: Callable[..., Events]) -> None:
    run = fleet.submit(selector="os=linux")
    fleet.append(run["tasks"][0]["attempt"], b"hello\n")
    fleet.end(run["id"])
    names = [name for name, _ in open_events(fleet, f"/api/v1/runs/{run['id']}/events")]
    assert names == ["run", "task", "task", "end"]


def test_history_and_live_are_one_path(fleet: Server, open_events: Callable[..., Events]) -> None:
    run = fleet.submit(nodes=["a"])
    attempt = run["tasks"][0]["attempt"]
    data = bytes(range(256)) * 16_384  # 4 MiB
    for at in range(0, len(data), 1 << 20):
        fleet.append(attempt, data[at : at + (1 << 20)])
    fleet.end(run["id"])
    names = [name for name, _ in open_events(fleet, f"/api/v1/runs/{run['id']}/events?logs=1")]
    assert names[-1] == "end"
    assert "log" not in names
    told = fleet.client.get(f"/api/v1/attempts/{attempt}/log/stream")
    assert (told.status_code, told.json()["code"]) == (410, "log-gone")


def test_a_reader_that_does_not_read_holds_back_nobody_and_nothing(
    fleet: Server, open_events: Callable[..., Events]
) -> None:
    run = fleet.submit(nodes=["a"])
    attempt = run["tasks"][0]["attempt"]
    data = b"z" * (1 << 20)
    slow = open_events(fleet, f"/api/v1/runs/{run['id']}/events?logs=1")  # opened, never read
    held: list[int] = []
    original = EventWriter.flush

    async def flush(self: EventWriter) -> None:
        held.append(len(self._text))
        await original(self)

    EventWriter.flush = flush  # type: ignore[method-assign]
    try:
        for _ in range(32):
            fleet.append(attempt, data)
        fleet.end(run["id"])
        reader = Reader()
        quick = open_events(fleet, f"/api/v1/runs/{run['id']}/events?logs=1")
        reader.take(iter(quick), until=lambda r: r.has_ended)
        assert len(reader.logs[attempt]) == 32 << 20
        # and what was never read is still all there, at whatever pace
        late = Reader()
        late.take(iter(slow), until=lambda r: r.has_ended)
        assert late.logs == reader.logs
    finally:
        EventWriter.flush = original  # type: ignore[method-assign]
    assert max(held) < 2 * follow.READ_BYTES


def test_a_reader_that_goes_is_forgotten(fleet: Server, open_events: Callable[..., Events]) -> None:
    run = fleet.submit(nodes=["a"])
    events = open_events(fleet, f"/api/v1/runs/{run['id']}/events?logs=1")
    next(iter(events))
    assert sum(fleet.parts.streams.values()) == 1
    events.close()
    fleet.wait(lambda: not fleet.parts.streams)
    fleet.wait(lambda: f"run:{run['id']}" not in fleet.process.nudges._listeners)


@pytest.mark.limit("streams_per_user")
def test_streams_per_user_at_the_limit_and_one_above(
    fleet: Server, open_events: Callable[..., Events], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert parts.STREAMS_PER_USER >= 16
    monkeypatch.setattr(streams, "STREAMS_PER_USER", 3)
    run = fleet.submit(nodes=["a"])
    path = f"/api/v1/runs/{run['id']}/events"
    three = [open_events(fleet, path) for _ in range(3)]
    for events in three:
        assert events.status == 200
        next(iter(events))
    answer = fleet.call("GET", path)
    assert (answer.status, answer.code) == (429, "too-many-streams")
    three[0].close()
    fleet.wait(lambda: sum(fleet.parts.streams.values()) == 2)
    assert open_events(fleet, path).status == 200


def test_comments_keep_a_quiet_stream_alive() -> None:
    now = [0.0]
    sent: list[bytes] = []

    async def send(message: Any) -> None:
        sent.append(bytes(message["body"]))

    async def play() -> None:
        out = EventWriter(send, lambda: now[0])
        await out.flush()
        now[0] = streams.COMMENT_S - 0.1
        await out.flush()
        assert sent == []
        now[0] = streams.COMMENT_S
        await out.flush()
        await out.flush()
        await out.event("run", {"text": "a\nb"}, "7")
        await out.flush()

    asyncio.run(play())
    assert sent == [b": still here\n\n", b'event: run\nid: 7\ndata: {"text":"a\\nb"}\n\n']


def test_cursors_come_now_and_then() -> None:
    now = [0.0]

    async def send(message: Any) -> None:
        raise AssertionError(message)

    out = EventWriter(send, lambda: now[0])
    assert not out.is_id_due(streams.ID_EVERY_BYTES - 1)
    assert out.is_id_due(1)
    assert not out.is_id_due(5)
    now[0] += streams.ID_EVERY_S
    assert out.is_id_due(1)
