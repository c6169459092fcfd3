"""`/attempts/{id}/log`: what one attempt wrote, as bytes, as lines, searched, raw, or live."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fleetwire.core.errors import FleetwireError
from fleetwire.server.api import views as shapes
from fleetwire.server.api import write
from fleetwire.server.api.doors import Door, caller_of, reach_of
from fleetwire.server.api.errors import Unprocessable
from fleetwire.server.api.follow import follow_log
from fleetwire.server.api.params import LogQuery, SearchQuery, StreamQuery
from fleetwire.server.api.parts import Parts, parts_of
from fleetwire.server.api.streams import EventStream, EventWriter, first_of, wait_gone
from fleetwire.server.domain import finding, views
from fleetwire.server.domain.people import Caller
from fleetwire.server.domain.views import AttemptView

READ_DEFAULT = 256 * 1024
LINES_DEFAULT = 200
RAW_BYTES = 1024 * 1024


async def _find(request: Request, attempt: str) -> AttemptView:
    reach = reach_of(request)
    return await parts_of(request).database.read(
        lambda c: views.get_attempt(c, finding.attempt(c, attempt, reach))
    )


async def read(request: Request, attempt: str, query: Annotated[LogQuery, Query()]) -> Response:
    """Read a log: bytes from `offset`, lines from `line`, or the last `tail` lines."""
    ways = [name for name in ("offset", "line", "tail") if getattr(query, name) is not None]
    if len(ways) > 1:
        raise Unprocessable(
            f"{' and '.join(ways)} exclude each other.", hint="Give one.", field=ways[1]
        )
    by_line = query.line is not None or query.lines is not None or query.tail is not None
    if by_line and query.limit is not None:
        raise Unprocessable("limit counts bytes.", hint="Use lines or tail.", field="limit")
    if not by_line and query.stream is not None:
        raise Unprocessable(
            "Bytes are read of both streams.", hint="Add line or tail.", field="stream"
        )
    logs = parts_of(request).logs
    one = await _find(request, attempt)
    is_complete = one.log_state == "sealed"
    stream = None if query.stream is None else write.STREAM_NUMBER[query.stream]
    if query.tail is not None:
        found = await logs.tail(one.segment, one.attempt, query.tail, stream)
        return write.answer(write.lines(one.attempt, found, is_complete=is_complete))
    if by_line:
        count = LINES_DEFAULT if query.lines is None else query.lines
        found = await logs.read_lines(one.segment, one.attempt, query.line or 0, count, stream)
        return write.answer(write.lines(one.attempt, found, is_complete=is_complete))
    offset = query.offset or 0
    chunks = await logs.read(one.segment, one.attempt, offset, query.limit or READ_DEFAULT)
    length = (await logs.lengths([(one.segment, one.attempt)])).get(one.attempt, 0)
    return write.answer(
        {
            "attempt": one.attempt,
            "offset": offset,
            "next_offset": offset + sum(chunk.length for chunk in chunks),
            "length": length,
            "complete": is_complete,
            "parts": write.parts(chunks),
        }
    )


async def search(
    request: Request, attempt: str, query: Annotated[SearchQuery, Query()]
) -> Response:
    """Find the lines that hold a text, exactly as written."""
    one = await _find(request, attempt)
    found = await parts_of(request).logs.search(
        one.segment, one.attempt, query.q, query.from_line, query.limit
    )
    return write.answer(write.matches(found))


async def raw(request: Request, attempt: str) -> Response:
    """Download exactly the bytes that the task wrote, both streams in the order they came.

    Of a log that still grows, what there is now.
    """
    parts = parts_of(request)
    one = await _find(request, attempt)
    lengths = await parts.logs.lengths([(one.segment, one.attempt)])
    if one.attempt not in lengths:  # its segment is gone; reading says why
        await parts.logs.read(one.segment, one.attempt, 0, 1)
    return RawLog(parts, caller_of(request), one, lengths.get(one.attempt, 0))


class RawLog(Response):
    """A log's bytes up to `length`, read while they are sent. Gaps have no bytes."""

    media_type = "application/octet-stream"

    def __init__(self, parts: Parts, caller: Caller, followed: AttemptView, length: int) -> None:
        name = f"{followed.attempt}.log"
        super().__init__(headers={"content-disposition": f'attachment; filename="{name}"'})
        del self.headers["content-length"]  # with gaps there are fewer bytes than the length
        self._parts = parts
        self._caller = caller
        self._followed = followed
        self._length = length

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer (ASGI), as long as the caller is there and may have it."""
        del scope
        self._is_over = False
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await first_of(
            self._write(send),
            self._until_gone(receive),
            self._parts.auth.until_changed(self._caller),
        )
        if not self._is_over:
            raise CutShort("The caller's login or token has ended, or may something else now.")

    async def _until_gone(self, receive: Receive) -> None:
        await wait_gone(receive)
        self._is_over = True  # nobody is left to be told anything

    async def _write(self, send: Send) -> None:
        one = self._followed
        offset = 0
        while offset < self._length and not self._parts.leaving.is_set():
            wanted = min(RAW_BYTES, self._length - offset)
            chunks = await self._parts.logs.read(one.segment, one.attempt, offset, wanted)
            if not chunks:
                raise CutShort(f"The log of {one.attempt} ended at {offset}, not {self._length}.")
            for chunk in chunks:
                offset += chunk.length
                if chunk.data:
                    await send(
                        {"type": "http.response.body", "body": chunk.data, "more_body": True}
                    )
        if offset < self._length:
            raise CutShort("The server is leaving.")
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        self._is_over = True


class CutShort(FleetwireError):
    """A download cannot go on. Its answer has no end, so nobody takes it for whole."""

    code = "cut-short"


async def stream(
    request: Request, attempt: str, query: Annotated[StreamQuery, Query()]
) -> Response:
    """Follow a log from `offset` (or `Last-Event-ID`, which wins): `log` events, then `end`."""
    parts = parts_of(request)
    one = await _find(request, attempt)
    if one.attempt not in await parts.logs.lengths([(one.segment, one.attempt)]):
        await parts.logs.read(one.segment, one.attempt, 0, 1)  # its segment is gone: it says why
    last = request.headers.get("last-event-id", "")
    offset = int(last) if last.isascii() and last.isdigit() and len(last) <= 16 else query.offset

    async def write_to(out: EventWriter) -> None:
        await follow_log(parts, one, offset, out)

    return EventStream(request, caller_of(request), write_to, time.monotonic)


_LOG = "/api/v1/attempts/{attempt}/log"
DOORS = [
    Door(
        "GET", _LOG, read, permission="read-logs", tag="logs",
        answers={200: shapes.LogBytes | shapes.LogLines}, problems=(404, 409, 410),
    ),
    Door(
        "GET", f"{_LOG}/search", search, permission="read-logs", tag="logs",
        answers={200: shapes.LogMatches}, problems=(404, 409, 410),
    ),
    Door(
        "GET", f"{_LOG}/raw", raw, permission="read-logs", tag="logs",
        answers={200: "application/octet-stream"}, problems=(404, 409, 410),
    ),
    Door(
        "GET", f"{_LOG}/stream", stream, permission="read-logs", tag="logs",
        answers={200: "text/event-stream"}, problems=(404, 409, 410, 429),
        headers={"Last-Event-ID": "The id of the last event that came, to go on after it"},
    ),
]  # fmt: skip
