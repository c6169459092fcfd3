"""One WebSocket as an asyncio Protocol that calls its owner: no task, no queue, no own buffer.

The agent's channel (`agent.channel`) is made for one link and waits in a task; here ten thousand
links share one buffer to read into, and what comes is handed on in the same turn of the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final, Protocol, cast

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame as WebSocketFrame
from websockets.frames import Opcode
from websockets.http11 import Response
from websockets.protocol import OPEN
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from fleetwire.core import limits
from fleetwire.protocol.versions import SUBPROTOCOL

_MAX_SIZE: Final = limits.CONTROL_FRAME_BYTES + 1024
# The event loop hands a buffer out, fills it and gives it back before it does anything else.
_INCOMING: Final = bytearray(64 * limits.KIB)
_DATA: Final = frozenset({Opcode.TEXT, Opcode.BINARY})

Frame = str | bytes


class Owner(Protocol):
    """Who is told what happens on a channel."""

    def connected(self) -> None:
        """The connection stands; the WebSocket is asked for."""
        ...

    def upgraded(self) -> None:
        """The WebSocket is open."""
        ...

    def arrived(self, frames: list[Frame]) -> None:
        """Frames have come."""
        ...

    def ended(self, code: int | None, reason: str) -> None:
        """It is over; `code` is the server's close code or HTTP status, None when it broke."""
        ...


class Channel(asyncio.BufferedProtocol):
    """See the module. It tells its owner nothing more after `ended`."""

    __slots__ = ("_owner", "_partial", "_status", "_text", "_transport", "_ws")

    def __init__(self, uri: WebSocketURI, owner: Owner) -> None:
        self._ws = ClientProtocol(uri, subprotocols=[Subprotocol(SUBPROTOCOL)], max_size=_MAX_SIZE)
        self._owner: Owner | None = owner
        self._transport: asyncio.Transport | None = None
        self._partial: list[bytes] = []
        self._text = False
        self._status: int | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._transport is not None

    def send(self, frames: Iterable[Frame]) -> None:
        """Write these frames in one system call; on a link that has ended they are dropped."""
        if self._ws.state is not OPEN:
            return
        for frame in frames:
            if isinstance(frame, str):
                self._ws.send_text(frame.encode())
            else:
                self._ws.send_binary(frame)
        self._flush()

    def close(self, code: int, reason: str) -> None:
        """Say goodbye, and hang up."""
        if self._ws.state is OPEN:
            self._ws.send_close(code, reason)
            self._flush()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Drop the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the WebSocket."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        if self._owner is not None:
            self._owner.connected()
        self._ws.send_request(self._ws.connect())
        self._flush()

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 (asyncio's signature)
        """Return where to put what comes."""
        return _INCOMING

    def buffer_updated(self, nbytes: int) -> None:
        """Take bytes, and hand on the frames in them."""
        self._ws.receive_data(_INCOMING[:nbytes])
        frames: list[Frame] = []
        for event in self._ws.events_received():
            if isinstance(event, WebSocketFrame):
                self._take(event, frames)
            elif isinstance(event, Response):
                self._take_response()
        if frames and self._owner is not None:
            self._owner.arrived(frames)
        self._flush()  # the answer to a ping or a close, where there is one
        if self._ws.close_expected() and self._transport is not None:
            self._transport.close()

    def eof_received(self) -> None:
        """Take the end of the stream."""
        self._ws.receive_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner how it ended."""
        self._transport = None
        owner, self._owner = self._owner, None
        received = self._ws.close_rcvd
        if owner is None:
            return
        if received is not None:
            owner.ended(received.code, received.reason)
        else:
            owner.ended(self._status, str(exc or "the connection broke"))

    def _take_response(self) -> None:
        error = self._ws.handshake_exc
        if isinstance(error, InvalidStatus):
            self._status = error.response.status_code
        if error is None and self._ws.subprotocol == SUBPROTOCOL and self._owner is not None:
            self._owner.upgraded()
        else:
            self.abort()

    def _take(self, frame: WebSocketFrame, frames: list[Frame]) -> None:
        if frame.opcode in _DATA:
            self._text = frame.opcode is Opcode.TEXT
        elif frame.opcode is not Opcode.CONT:
            return  # ping, pong and close are the library's
        if not frame.fin or self._partial:
            self._partial.append(bytes(frame.data))
            if not frame.fin:
                return
            data: bytes | bytearray | memoryview = b"".join(self._partial)
            self._partial.clear()
        else:
            data = frame.data
        # What is no UTF-8 becomes U+FFFD, and then no message of ours: the codec says so.
        frames.append(bytes(data).decode(errors="replace") if self._text else bytes(data))

    def _flush(self) -> None:
        data = self._ws.data_to_send()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data[0] if len(data) == 1 else b"".join(data))
