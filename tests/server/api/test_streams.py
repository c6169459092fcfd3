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
    for path in (
        f"/api/v1/runs/{run['id']}/events?logs=1",
        f"/api/v1/attempts/{attempt}/log/stream",
    ):
        reader = Reader()
        reader.take(iter(open_events(fleet, path)), until=lambda r: r.has_ended)
        assert reader.logs[attempt] == data


def test_end_waits_for_the_last_log(fleet: Server, open_events: Callable[..., Events]) -> None:
    run = fleet.submit(nodes=["a"])
    attempt = run["tasks"][0]["attempt"]
    fleet.end(run["id"], log_state="open")  # it has exited, but its log is not complete
    reader = Reader()
    stream = iter(open_events(fleet, f"/api/v1/runs/{run['id']}/events?logs=1"))
    reader.take(stream, until=lambda r: r.run.get("state") == "ended" and bool(r.tasks))
    fleet.append(attempt, b"late\n")
    reader.take(stream, until=lambda r: r.logs.get(attempt) == b"late\n")
    assert not reader.has_ended
    fleet.append(attempt, b"last\n")
    fleet.end(run["id"])
    reader.take(stream, until=lambda r: r.has_ended)
    assert reader.logs[attempt] == b"late\nlast\n"


def test_a_damaged_log_ends_too(fleet: Server, open_events: Callable[..., Events]) -> None:
    run = fleet.submit(nodes=["a"])
    attempt = run["tasks"][0]["attempt"]
    fleet.append(attempt, b"some\n")
    fleet.end(run["id"], log_state="damaged")
    reader = Reader()
    reader.take(
        iter(open_events(fleet, f"/api/v1/attempts/{attempt}/log/stream")),
        until=lambda r: r.has_ended,
    )
    assert reader.logs[attempt] == b"some\n"


def test_resume_sends_the_rest(fleet: Server, open_events: Callable[..., Events]) -> None:
    run = fleet.submit(selector="os=linux")
    attempts = [task["attempt"] for task in run["tasks"]]
    for attempt in attempts:
        fleet.append(attempt, b"x" * 2_000_000 + b"\n")  # above 1 MiB: ids come along
    path = f"/api/v1/runs/{run['id']}/events?logs=1"
    reader = Reader()
    events = open_events(fleet, path)
    stream = iter(events)
    reader.take(stream, until=lambda r: sum(map(len, r.logs.values())) == 4_000_002)
    fleet.append(attempts[0], b"y\n")
    reader.take(stream, until=lambda r: len(r.logs[attempts[0]]) == 2_000_003)
    assert events.last_id
    events.close()
    fleet.append(attempts[0], b"z\n")
    fleet.end(run["id"])
    reader.take(iter(open_events(fleet, path, last=events.last_id)), until=lambda r: r.has_ended)
    assert reader.logs[attempts[0]] == b"x" * 2_000_000 + b"\ny\nz\n"
    assert reader.repeated < 4_000_000  # from the last cursor on, not from the beginning
    assert reader.tasks.keys() == {0, 1}  # what people see is sent anew


def test_resume_over_a_restart_of_the_server(
    fleet: Server, open_events: Callable[..., Events]
) -> None:
    run = fleet.submit(nodes=["a"])
    attempt = run["tasks"][0]["attempt"]
    fleet.append(attempt, b"a" * 2_000_000)  # above 1 MiB: an id comes along
    path = f"/api/v1/runs/{run['id']}/events?logs=1"
    reader = Reader()
    events = open_events(fleet, path)
    stream = iter(events)
    reader.take(stream, until=lambda r: len(r.logs.get(attempt, b"")) == 2_000_000)
    began = time.monotonic()
    fleet.restart()
    assert time.monotonic() - began < 10
    assert list(stream) == []  # a whole answer without `end`: the reader comes back
    fleet.append(attempt, b"b")
    fleet.end(run["id"])
    again = iter(open_events(fleet, path, last=events.last_id))
    reader.take(again, until=lambda r: r.has_ended)
    assert reader.logs[attempt] == b"a" * 2_000_000 + b"b"
    assert reader.repeated < 2_000_000


def test_a_strange_last_event_id_sends_everything(
    fleet: Server, open_events: Callable[..., Events]
) -> None:
    run = fleet.submit(nodes=["a"])
    attempt = run["tasks"][0]["attempt"]
    fleet.append(attempt, b"all\n")
    fleet.end(run["id"])
    for last in ("x", "0", "AQ", "____", "A" * 3000, "é"):
        for path in (
            f"/api/v1/runs/{run['id']}/events?logs=1",
            f"/api/v1/attempts/{attempt}/log/stream",
        ):
            reader = Reader()
            events = iter(open_events(fleet, path, last=last))
            reader.take(events, until=lambda r: r.has_ended)
            assert reader.logs[attempt] == b"all\n"


def test_log_stream_from_an_offset(fleet: Server, open_events: Callable[..., Events]) -> None:
    run = fleet.submit(nodes=["a"])
    attempt = run["tasks"][0]["attempt"]
    fleet.append(attempt, b"0123456789")
    fleet.end(run["id"])
    path = f"/api/v1/attempts/{attempt}/log/stream?offset=4"
    events = open_events(fleet, path)
    sent = list(events)
    assert [name for name, _ in sent] == ["log", "end"]
    assert sent[0][1]["offset"] == 4
    assert events.last_id == "10"
    resumed = list(open_events(fleet, path, last="8"))
    assert resumed[0][1]["offset"] == 8
    past = list(open_events(fleet, f"/api/v1/attempts/{attempt}/log/stream?offset=99"))
    assert [name for name, _ in past] == ["end"]


def test_without_any_nudge_the_sweep_sees_it(
    fleet: Server, open_events: Callable[..., Events]
) -> None:
    fleet.process.nudges._drop = True
    run = fleet.submit(nodes=["a"])
    attempt = run["tasks"][0]["attempt"]
    stream = iter(open_events(fleet, f"/api/v1/runs/{run['id']}/events?logs=1"))
    reader = Reader()
    reader.take(stream, until=lambda r: bool(r.tasks))
    fleet.append(attempt, b"swept\n")
    fleet.end(run["id"])
    reader.take(stream, until=lambda r: r.has_ended)
    assert reader.logs[attempt] == b"swept\n"


def test_a_nudge_arrives_soon(fleet: Server, open_events: Callable[..., Events]) -> None:
    run = fleet.submit(nodes=["a"])
    attempt = run["tasks"][0]["attempt"]
    stream = iter(open_events(fleet, f"/api/v1/runs/{run['id']}/events?logs=1"))
    reader = Reader()
    reader.take(stream, until=lambda r: bool(r.tasks))
    took = []
    for number in range(20):
        began = time.monotonic()
        fleet.append(attempt, b"x")
        reader.take(stream, until=lambda r, n=number: len(r.logs.get(attempt, b"")) == n + 1)
        took.append(time.monotonic() - began)
    assert sorted(took)[10] < follow.SWEEP_S / 2, took  # nudged, not swept


def test_a_deleted_segment_ends_the_stream_of_its_run_and_is_refused_by_itself(
    fleet: Server, open_events: Callable[..., Events]
) -> None:
    run = fleet.submit(nodes=["a"])
    attempt = run["tasks"][0]["attempt"]
    fleet.append(attempt, b"x\n")
    fleet.end(run["id"])
    logs = fleet.process.logs
    fleet.run(logs.delete_segment(logs.segment_now()))
    names = [name for name, _ in open_events(fleet, f"/api/v1/runs/{run['id']}/events?logs=1")]
    assert names[-1] == "end"
    assert "log" not in names
    told = fleet.call("GET", f"/api/v1/attempts/{attempt}/log/stream")
    assert (told.status, told.code) == (410, "log-gone")


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
