"""Answers, written with msgspec straight from the domain's views (pydantic on the way of every
message is slow); `views` documents the same shapes, and tests hold the two together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Final, TypeVar

import msgspec
from starlette.responses import Response

from fleetwire.core.happenings import Exited
from fleetwire.core.specs import Script, Spec
from fleetwire.server.domain.node_story import Happened
from fleetwire.server.domain.people import TokenView
from fleetwire.server.domain.projects import Member, ProjectView
from fleetwire.server.domain.story import StoryLine
from fleetwire.server.domain.timeline import TimelineLine
from fleetwire.server.domain.views import LogView, NodeView, RunView, TaskView
from fleetwire.server.logs.base import Chunk, LogLine, LogLines, LogMatches

JSON: Final = "application/json"
SCRIPT_IN_LISTS: Final = 200
STREAMS: Final = ("gap", "stdout", "stderr")
STREAM_NUMBER: Final = {"stdout": 1, "stderr": 2}
MERGE_US: Final = 10_000
"""Neighbouring pieces of one stream are one part where they are this close in time: a task that
writes byte by byte would otherwise cost a hundred bytes of JSON for each."""

_encode = msgspec.json.Encoder().encode
T = TypeVar("T")


class Part(msgspec.Struct):
    """A part of a log event; msgspec writes the bytes as base64."""

    offset: int
    stream: str
    time: str
    length: int
    bytes: memoryview


class LogEvent(msgspec.Struct):
    """The data of a `log` event."""

    attempt: str
    node: str | None
    index: int
    offset: int
    parts: list[Part]


def answer(value: Any, status: int = 200) -> Response:  # noqa: ANN401 - whatever is JSON
    """Return a JSON response."""
    return Response(_encode(value), status, media_type=JSON)


def page(items: list[Any], next_cursor: str | None) -> Response:
    """Return one page of a list."""
    return answer({"items": items, "next_cursor": next_cursor})


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def rfc3339(at_us: int) -> str:
    """Return microseconds since 1970 as RFC 3339, UTC, always with six decimals."""
    seconds, us = divmod(at_us, 1_000_000)
    return f"{_second(seconds)}.{us:06d}Z"


def at(at_us: int | None) -> str | None:
    """Return a time that may be absent."""
    return None if at_us is None else rfc3339(at_us)


def spec(value: Spec, *, is_cut: bool = False) -> Any:  # noqa: ANN401 - JSON of any kind of spec
    """Return a spec, its script cut short for lists."""
    if is_cut and isinstance(value, Script) and len(value.script) > SCRIPT_IN_LISTS:
        return msgspec.structs.replace(value, script=value.script[:SCRIPT_IN_LISTS])
    return value


def run(view: RunView, *, is_cut: bool = False) -> dict[str, Any]:
    """Return a run; `tasks` only where the view has them."""
    shape: dict[str, Any] = {
        "id": view.id,
        "name": view.name,
        "state": view.state,
        "outcome": view.outcome,
        "wish": view.wish,
        "created_at": rfc3339(view.created_at),
        "ended_at": at(view.ended_at),
        "created_by": view.created_by,
        "selector": view.selector,
        "nodes": view.nodes,
        "any": view.any,
        "spec": spec(view.spec, is_cut=is_cut),
        "counts": view.counts,
        "project": view.project,
        "retry": view.retry,
        "lost_after": view.lost_after,
    }
    if view.tasks is not None:
        shape["tasks"] = [task(one) for one in view.tasks]
    return shape


def task(view: TaskView) -> dict[str, Any]:
    """Return a task with its earlier attempts."""
    return _attempt(view) | {"earlier": [_attempt(one) for one in view.earlier]}


def _attempt(view: TaskView) -> dict[str, Any]:
    return {
        "id": view.id,
        "index": view.index,
        "node": view.node,
        "node_id": view.node_id,
        "attempt": view.attempt,
        "number": view.number,
        "state": view.state,
        "wish": view.wish,
        "outcome": view.outcome,
        "exit_code": view.exit_code,
        "signal": view.signal,
        "reason": view.reason,
        "started_at": at(view.started_at),
        "ended_at": at(view.ended_at),
        "duration": view.duration,
        "log": log(view.log),
        "late_exit": None if view.late_exit is None else _exit(view.late_exit),
    }


def log(view: LogView) -> dict[str, Any]:
    """Return what is known of a log."""
    return {
        "length": view.length,
        "sha256": view.sha256,
        "complete": view.complete,
        "state": view.state,
    }


def _exit(exited: Exited) -> dict[str, Any]:
    return {
        "at": rfc3339(exited.at),
        "cause": exited.cause,
        "exit_code": exited.exit_code,
        "signal": exited.signal,
        "started_at": rfc3339(exited.started_at),
        "duration": exited.duration,
        "length": exited.length,
        "sha256": exited.sha256,
        "leftovers": exited.leftovers,
        "error": exited.error,
    }


def node(view: NodeView) -> dict[str, Any]:
    """Return a node."""
    return {
        "id": view.id,
        "name": view.name,
        "link": view.link,
        "link_since": at(view.link_since),
        "reconnects": view.reconnects,
        "admin": view.admin,
        "labels": view.labels,
        "capacity": view.capacity,
        "running": view.running,
        "last_seen_at": at(view.last_seen_at),
        "agent_version": view.agent_version,
        "address": view.address,
        "clock_skew": view.clock_skew,
        "created_at": rfc3339(view.created_at),
        "project": view.project,
        "inventory": view.inventory,
        "warnings": view.warnings,
    }


def node_event(event: Happened) -> dict[str, Any]:
    """Return what happened to a node."""
    return {"id": event.id, "at": rfc3339(event.at), "text": event.text}


def timeline_line(line: TimelineLine) -> dict[str, Any]:
    """Return a line of a run's timeline."""
    return {
        "at": rfc3339(line.at),
        "kind": line.kind,
        "task": line.task,
        "attempt": line.number,
        "node": line.node,
        "text": line.text,
    }


def token(view: TokenView) -> dict[str, Any]:
    """Return an API token without its secret."""
    return {
        "id": view.id,
        "name": view.name,
        "created_at": rfc3339(view.created_at),
        "expires_at": at(view.expires_at),
        "last_used_at": at(view.last_used_at),
        "project": view.project,
        "permissions": view.permissions,
    }


def project(view: ProjectView) -> dict[str, Any]:
    """Return a project, with what the one who asks may in it."""
    return {
        "id": view.id,
        "name": view.name,
        "created_at": rfc3339(view.created_at),
        "roles": view.roles,
        "permissions": view.permissions,
    }


def member(view: Member) -> dict[str, Any]:
    """Return the roles of a user in a project."""
    return {
        "user_id": view.user_id,
        "user": view.user,
        "project_id": view.project_id,
        "project": view.project,
        "roles": view.roles,
    }


def story_line(line: StoryLine) -> dict[str, Any]:
    """Return one recorded reason."""
    return {
        "at": rfc3339(line.at),
        "task": line.task,
        "node": line.node,
        "state": line.state,
        "text": line.text,
    }


def parts(chunks: Iterable[Chunk]) -> list[Part]:
    """Return chunks as parts, neighbours of one stream and about one time together."""
    made: list[Part] = []
    for chunk in chunks:
        data = memoryview(chunk.data)
        offset, begin = chunk.offset, 0
        pieces = chunk.pieces
        i = 0
        while i < len(pieces):
            stream, length, began_us = pieces[i]
            i += 1
            while (
                i < len(pieces)
                and pieces[i].stream == stream
                and abs(pieces[i].time_us - began_us) <= MERGE_US
            ):
                length += pieces[i].length
                i += 1
            stored = length if stream else 0
            view = data[begin : begin + stored]
            made.append(Part(offset, STREAMS[stream], rfc3339(began_us), length, view))
            offset += length
            begin += stored
    return made


def lines(attempt: str, found: LogLines, *, is_complete: bool) -> dict[str, Any]:
    """Return lines of a log."""
    return {
        "attempt": attempt,
        "first_line": found.first_line,
        "lines": [_line(line) for line in found.lines],
        "total_lines": found.total_lines,
        "next_line": found.next_line,
        "complete": is_complete,
    }


def _line(line: LogLine) -> dict[str, Any]:
    return {
        "line": line.line,
        "offset": line.offset,
        "stream": STREAMS[line.stream],
        "time": rfc3339(line.time_us),
        "text": line.text.decode("utf-8", "replace"),
        "cut": line.cut,
        "gap": line.gap,
    }


def matches(found: LogMatches) -> dict[str, Any]:
    """Return what a search found."""
    return {
        "matches": [
            {
                "line": match.line,
                "offset": match.offset,
                "text": match.text.decode("utf-8", "replace"),
            }
            for match in found.matches
        ],
        "next_line": found.next_line,
    }


def take_page(
    found: list[T], limit: int, *, write: Callable[[T], Any], cursor: Callable[[T], str]
) -> Response:
    """Return the page of a query that asked for one row more than `limit`."""
    shown = found[:limit]
    more = len(found) > limit and bool(shown)
    return page([write(one) for one in shown], cursor(shown[-1]) if more else None)
