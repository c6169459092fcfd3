"""Following a run to its end, whatever happens to the server meanwhile.

`GET /runs/{id}/events` is read from where it ended (`Last-Event-ID`). After a reconnect some
log bytes may come again, so that each attempt's own offset decides what is new: every byte is
given once and in order (docs/seams.md, 4). The server being away is waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeAlias, TypeVar

import msgspec

from fleetwire.client.backoff import Patience
from fleetwire.client.connection import AWAY, Connection
from fleetwire.client.errors import BadAnswer, Problem, ServerUnreachable
from fleetwire.client.http1 import Answering, BadHttp
from fleetwire.client.shapes import GAP, LogPage, Part, Run, Task
from fleetwire.client.sse import EventReader, ServerEvent

T = TypeVar("T")

SILENCE_S: Final = 45.0
"""The server sends a comment every 15 s; three missed ones are a dead connection."""
BLOCK: Final = 256 * 1024
PATIENCE_S: Final = 24 * 3600.0
END: Final = "end"


class RunChanged(msgspec.Struct):
    """The run as it is now, without its tasks; `raw` is the server's JSON."""

    run: Run
    raw: bytes


class TaskChanged(msgspec.Struct):
    """A task as it is now."""

    task: Task
    raw: bytes


class LogBytes(msgspec.Struct):
    """The next bytes of an attempt's log, each byte once and in order; `node` is its name."""

    attempt: str
    offset: int
    parts: list[Part]
    node: str | None = None
    index: int = 0


class End(msgspec.Struct):
    """The run has ended and all its logs are sealed. Nothing comes after it."""


Event: TypeAlias = RunChanged | TaskChanged | LogBytes | End

_run = msgspec.json.Decoder(Run)
_task = msgspec.json.Decoder(Task)
_log = msgspec.json.Decoder(LogBytes)
_page = msgspec.json.Decoder(LogPage)


class Positions:
    """How much of each attempt's log has been given."""

    def __init__(self) -> None:
        self._next: dict[str, int] = {}

    def of(self, attempt: str) -> int:
        """Return the offset of the next byte wanted."""
        return self._next.get(attempt, 0)

    def missing(self, log: LogBytes) -> tuple[int, int] | None:
        """Return the range that lies before this event and was not given, if any."""
        position = self.of(log.attempt)
        return (position, log.offset) if log.offset > position else None

    def fresh(self, log: LogBytes) -> LogBytes | None:
        """Cut off what was given already; None when nothing is left. Counts the rest as given."""
        position = self.of(log.attempt)
        if log.offset > position:
            raise AssertionError("the missing range is asked for first")
        skip = position - log.offset
        end = log.offset + sum(part.length for part in log.parts)
        if end <= position:
            return None
        self._next[log.attempt] = end
        if skip == 0:
            return log
        parts: list[Part] = []
        for part in log.parts:
            if skip >= part.length:
                skip -= part.length
                continue
            parts.append(_cut(part, skip) if skip else part)
            skip = 0
        return LogBytes(log.attempt, position, parts, log.node, log.index)


def _cut(part: Part, skip: int) -> Part:
    rest = b"" if part.stream == GAP else part.data[skip:]
    return Part(part.offset + skip, part.stream, part.length - skip, part.time, rest)


def follow_run(
    connection: Connection,
    path: str,
    *,
    logs: bool,
    patience: float = PATIENCE_S,
    notify: Callable[[str], None] | None = None,
    on_open: Callable[[], None] | None = None,
) -> Iterator[Event]:
    """Yield what happens to a run until its end; `path` is `/api/v1/runs/{id}`.

    Args:
        connection: where to ask; its own requests stay possible between two events.
        path: the run's path.
        logs: whether log bytes are wanted.
        patience: seconds to wait for a server that has gone away.
        notify: called with a sentence when the server goes away, with "" when it is back.
        on_open: called each time the stream is open.

    Raises:
        ServerUnreachable: the server was away for longer than the patience.
        Problem: the server refuses, or retention has deleted a log (Gone).
    """
    positions = Positions()
    query = {"logs": 1} if logs else {"logs": 0}
    for event in follow_events(
        connection, f"{path}/events", query, patience=patience, notify=notify, on_open=on_open
    ):
        if event.kind == "log":
            log = decoded(_log, event)
            while (missing := positions.missing(log)) is not None:
                # Never seen with a server of ours; a stream that jumps must not lose a line.
                yield from _fill(connection, positions, log, missing)
            fresh = positions.fresh(log)
            if fresh is not None:
                yield fresh
        elif event.kind == "task":
            yield TaskChanged(decoded(_task, event), event.data)
        elif event.kind == "run":
            yield RunChanged(decoded(_run, event), event.data)
        elif event.kind == END:
            yield End()
            return


def decoded(decoder: msgspec.json.Decoder[T], event: ServerEvent) -> T:
    """Return the event's data as a value, or raise BadAnswer."""
    try:
        return decoder.decode(event.data)
    except msgspec.MsgspecError as error:
        raise BadAnswer(
            f"The server sent a {event.kind!r} event that cannot be read: {error}.",
            hint="Is the client older than the server? Update it.",
        ) from error


def _fill(
    connection: Connection, positions: Positions, log: LogBytes, missing: tuple[int, int]
) -> Iterator[Event]:
    start, end = missing
    answer = connection.request(
        "GET",
        f"/api/v1/attempts/{log.attempt}/log",
        query={"offset": start, "limit": min(end - start, 1 << 20)},
    )
    page = _page.decode(answer.body)
    fresh = positions.fresh(LogBytes(log.attempt, page.offset, page.parts, log.node, log.index))
    if fresh is None:
        raise BadAnswer(
            f"The server does not hold bytes {start} to {end} of the log of {log.attempt}.",
            hint="`fleetwire runs why` says what happened to the run.",
        )
    yield fresh


def follow_events(
    connection: Connection,
    path: str,
    query: Mapping[str, object],
    *,
    patience: float = PATIENCE_S,
    notify: Callable[[str], None] | None = None,
    on_open: Callable[[], None] | None = None,
) -> Iterator[ServerEvent]:
    """Yield the events of a stream, reconnecting for ever while the server comes back within
    the patience. The caller stops at `end`, behind which the server ends the stream.
    """
    last: str | None = None
    waiting = Patience(patience, notify)
    while True:
        known = connection.reached
        failure: Exception | None = None
        try:
            headers = {"Accept": "text/event-stream"}
            if last is not None:
                headers["Last-Event-ID"] = last
            with connection.stream(path, query=query, headers=headers, timeout=SILENCE_S) as answer:
                if on_open is not None:
                    on_open()
                reader = EventReader()
                while block := answer.read1(BLOCK):
                    waiting.back()
                    for event in reader.feed(block):
                        last = event.id or last
                        if event.kind == END:
                            _read_out(answer)
                        yield event
        except ServerUnreachable as away:
            if not known and not connection.reached:
                raise
            failure = away
        except Problem as problem:
            if problem.status not in AWAY:
                raise
            failure = problem
        except (OSError, BadHttp) as lost:
            failure = lost
        if not waiting.wait():
            raise ServerUnreachable(
                f"The server at {connection.url} has been away for {patience:.0f} s.",
                hint="What was submitted goes on without you: ask again with `fleetwire runs`.",
            ) from failure


def _read_out(answer: Answering) -> None:
    """Read to the end of a stream that is over, so that its connection can be used again."""
    try:
        while answer.read1(BLOCK):
            pass
    except (OSError, BadHttp):
        return  # it is closed instead; all that it had to say has come
