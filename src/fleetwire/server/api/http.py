"""uvicorn's HTTP protocol, with bounds on what comes before the application is asked.

uvicorn itself would collect request headers without end, and wait for their end for ever.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fleetwire.core import limits
from fleetwire.core.errors import FleetwireError
from fleetwire.server.api.errors import BadRequest, HeadersTooLarge, problem_of

HEAD_BYTES: Final = limits.HEAD_BYTES
HEAD_S: Final = limits.HEAD_WITHIN_S
TAKEN_S: Final = limits.ANSWER_TAKEN_WITHIN_S
TOGETHER_BYTES: Final = 64 * 1024
CLOSE_WITHIN_S: Final = 5.0


class BoundedHttp(HttpToolsProtocol):
    """One connection. A request's head (request line and headers) has a size and a time limit."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - uvicorn's business
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._fed = 0
        self._parsed = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._taking_timer: asyncio.TimerHandle | None = None
        self._refusal: FleetwireError | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request's head."""
        whole = _Whole(cast("asyncio.Transport", transport), self.loop)
        super().connection_made(cast("asyncio.Transport", whole))
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        self._stop_waiting_for_reader()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head whose end has not come yet."""
        super().data_received(data)
        if self._in_head:
            self._fed += len(data)
            if self._fed > HEAD_BYTES:
                self._refuse(_too_large())

    def on_message_begin(self) -> None:
        """Start a head."""
        self._in_head = True
        self._fed = self._parsed = 0
        if self._head_timer is None:
            self._wait_for_head()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take the request line's target."""
        self._parsed += len(url)
        if self._parsed > HEAD_BYTES:
            self._stop_parsing()
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        self._parsed += len(name) + len(value) + 4
        if self._parsed > HEAD_BYTES:
            self._stop_parsing()
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """End the head."""
        self._in_head = False
        self._stop_waiting()
        super().on_headers_complete()

    def pause_writing(self) -> None:
        """Begin to wait for a reader that takes nothing."""
        super().pause_writing()
        self._taking_timer = self.loop.call_later(TAKEN_S, self.transport.abort)

    def resume_writing(self) -> None:
        """The reader goes on."""
        self._stop_waiting_for_reader()
        super().resume_writing()

    def _stop_waiting_for_reader(self) -> None:
        if self._taking_timer is not None:
            self._taking_timer.cancel()
            self._taking_timer = None

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, as a problem document like everything else."""
        self._refuse(self._refusal or BadRequest(msg, hint="Speak HTTP/1.1."))

    def _stop_parsing(self) -> None:
        self._refusal = _too_large()
        raise self._refusal  # the parser stops, and uvicorn calls send_400_response

    def _wait_for_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_S, self._head_too_slow)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_too_slow(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self.transport.close()

    def _refuse(self, error: FleetwireError) -> None:
        if self.transport.is_closing():
            return
        response = problem_of(error)
        lines = [f"HTTP/1.1 {response.status_code} ".encode("ascii")]
        lines += [name + b": " + value for name, value in response.raw_headers]
        lines += [b"connection: close", b"", bytes(response.body)]
        self.transport.write(b"\r\n".join(lines))
        self.transport.close()


class _Whole:
    """A transport that writes what comes in one turn of the event loop together: an answer's
    head and body are then one system call here, and one packet for who reads it.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        if not self._held:
            self._loop.call_soon(self._flush)
        self._held.append(data)
        self._size += len(data)
        if self._size >= TOGETHER_BYTES:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._transport.close()
        if self._transport.get_write_buffer_size():
            # Whoever reads nothing would keep the connection, and what is left of it here.
            self._loop.call_later(CLOSE_WITHIN_S, self._transport.abort)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._flush()
        self._transport.set_protocol(protocol)

    def _flush(self) -> None:
        if self._held:
            held, self._held, self._size = self._held, [], 0
            # The client may have gone since the write, and uvloop raises where asyncio drops it.
            if not self._transport.is_closing():
                self._transport.writelines(held)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a transport has
        return getattr(self._transport, name)


def _too_large() -> HeadersTooLarge:
    return HeadersTooLarge("The headers are too large.", hint=f"At most {HEAD_BYTES} bytes.")
