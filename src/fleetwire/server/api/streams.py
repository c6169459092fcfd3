"""Server-sent events: an answer that follows.

A stream reads the store from where its reader is, always: history and live are one path, and a
slow reader simply reads later. Nothing is queued for anybody (promise P14): what is in memory of
a stream is what it is writing now. Nudges only say "look again"; a sweep looks each second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeAlias

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fleetwire.server.api.auth import check_stream
from fleetwire.server.api.errors import TooManyStreams
from fleetwire.server.api.parts import STREAMS_PER_USER, parts_of
from fleetwire.server.domain.people import Caller

COMMENT_S: Final = 15.0
ID_EVERY_S: Final = 0.5
ID_EVERY_BYTES: Final = 1024 * 1024
FLUSH_BYTES: Final = 64 * 1024

_COMMENT: Final = b": still here\n\n"
_ENCODER: Final = msgspec.json.Encoder()


class EventWriter:
    """Writes events to one reader, small ones together. `clock` is monotonic seconds.

    Waits while the reader is slow, so that no more than about one event is ever held for it.
    """

    def __init__(self, send: Send, clock: Callable[[], float]) -> None:
        self._send = send
        self._clock = clock
        self._text = bytearray()
        self._sent_at = self._id_at = clock()
        self._bytes = 0

    async def event(self, name: str, data: Any, cursor: str | None = None) -> None:  # noqa: ANN401 - JSON
        """Write an event, now or with the next `flush`."""
        text = self._text
        text += f"event: {name}\n".encode("ascii")
        if cursor is not None:
            text += f"id: {cursor}\n".encode("ascii")
        text += b"data: "
        _ENCODER.encode_into(data, text, -1)  # JSON holds no raw newline: one `data` line
        text += b"\n\n"
        if len(text) >= FLUSH_BYTES:
            await self.flush()

    def is_id_due(self, size: int) -> bool:
        """Count `size` log bytes; tell whether their event should carry a cursor.

        Only now and then, because a cursor costs bytes and work.
        """
        self._bytes += size
        now = self._clock()
        if self._bytes < ID_EVERY_BYTES and now - self._id_at < ID_EVERY_S:
            return False
        self._id_at, self._bytes = now, 0
        return True

    async def flush(self) -> None:
        """Send what was written; a comment where nothing was for a while, so that both ends and
        what is between them know that the connection lives.
        """
        now = self._clock()
        if not self._text:
            if now - self._sent_at < COMMENT_S:
                return
            self._text += _COMMENT
        self._sent_at = now
        text, self._text = self._text, bytearray()
        await self._send({"type": "http.response.body", "body": text, "more_body": True})


Follow: TypeAlias = Callable[[EventWriter], Awaitable[None]]


class EventStream(Response):
    """The answer: what `follow` writes. Ends with it, with the reader, with the server, or when
    the caller may no longer what they could.
    """

    media_type = "text/event-stream"

    def __init__(
        self, request: Request, caller: Caller, follow: Follow, clock: Callable[[], float]
    ) -> None:
        super().__init__(headers={"x-accel-buffering": "no"})
        del self.headers["content-length"]
        if caller.via == "cookie":
            check_stream(request)
        self._parts = parts = parts_of(request)
        self._caller = caller
        self._user = caller.user
        self._follow = follow
        self._clock = clock
        count = parts.streams.get(self._user, 0)
        if count >= STREAMS_PER_USER:
            raise TooManyStreams(
                f"You have {count} open streams.",
                hint=f"At most {STREAMS_PER_USER} at once; close one.",
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer, as long as it takes (ASGI)."""
        del scope
        streams = self._parts.streams
        streams[self._user] = streams.get(self._user, 0) + 1
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await first_of(
                self._write(send),
                wait_gone(receive),
                self._parts.leaving.wait(),
                self._parts.auth.until_changed(self._caller),
            )
        finally:
            streams[self._user] -= 1
            if not streams[self._user]:
                del streams[self._user]
        # A stream that ends because the server leaves, or its caller's rights changed, is a whole
        # answer too: its reader has not seen `end`, so it comes back, with its Last-Event-ID.
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, send: Send) -> None:
        await self._follow(EventWriter(send, self._clock))


async def wait_gone(receive: Receive) -> None:
    """Return when the reader has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def first_of(*waits: Coroutine[Any, Any, Any]) -> None:
    """Run all until the first ends, then cancel the others. What one raises is raised as it is,
    because whoever answers a request knows errors by their kind; of several, a group.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in waits]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
    except BaseExceptionGroup as raised:
        if len(raised.exceptions) == 1:
            raise raised.exceptions[0] from None
        raise
