"""One WebSocket to a server: websockets' sans-IO client on an asyncio Protocol of our own.

Why not `websockets.asyncio`: all frames of a loop turn leave in one write, nothing is queued or
copied twice, there are no tasks and no keepalive timer to hold (the protocol has its own
heartbeats), and it takes a megabyte less. Compression stays off: log chunks are zstd already.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidStatus, ProtocolError
from websockets.frames import Frame as WebSocketFrame
from websockets.frames import Opcode
from websockets.http11 import Response
from websockets.protocol import OPEN
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from fleetwire.core import limits
from fleetwire.protocol.versions import SUBPROTOCOL

_MAX_SIZE: Final = limits.CONTROL_FRAME_BYTES + 1024
_QUEUE: Final = 256  # frames not yet taken, after which reading pauses
_HIGH_WATER: Final = 256 * limits.KIB  # unsent bytes, after which `writable` is false
_BUFFER: Final = 64 * limits.KIB
_CLOSE_WITHIN_S: Final = 1.0

Frame = str | bytes


class LinkClosed(Exception):
    """The link ended. `code` is the close code of the server, None when it just broke."""

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class LinkRefused(LinkClosed):
    """The server answered the upgrade with an HTTP error; `code` is its status."""


def dialled_name(server: str) -> str:
    """Return the name by which a server is dialled, as the Host header has it."""
    parts = urlsplit(server)
    default = 443 if parts.scheme == "https" else 80
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return host if parts.port in {None, default} else f"{host}:{parts.port}"


def is_secure(server: str) -> bool:
    """Say whether a server is dialled over TLS."""
    return urlsplit(server).scheme == "https"


async def open_channel(
    server: str, node: str, *, timeout_s: float, tls: ssl.SSLContext | None = None
) -> Channel:
    """Return an open channel to `/ws/agent/{node}` of the server (http or https URL). The name
    is resolved anew each time, and its addresses are tried in turn. `tls` verifies the server of
    an https URL; None: by the CAs that the machine knows.

    Raises OSError, TimeoutError, LinkClosed or LinkRefused. Cancelling is safe.
    """
    parts = urlsplit(server)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    host = parts.hostname or ""
    uri = WebSocketURI(secure, host, port, f"{parts.path}/ws/agent/{node}", "")
    context = (tls or ssl.create_default_context()) if secure else None
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(timeout_s):
        _, channel = await loop.create_connection(
            lambda: Channel(uri),
            host,
            port,
            ssl=context,
            happy_eyeballs_delay=0.25 if not _is_address(host) else None,
        )
        try:
            await channel.wait_open()
        except BaseException:
            channel.abort()
            raise
    return channel


class Channel(asyncio.BufferedProtocol):
    """An open WebSocket. Frames in: `receive`. Frames out: `send`, in one write."""

    def __init__(self, uri: WebSocketURI) -> None:
        self._loop = asyncio.get_running_loop()
        self._ws = ClientProtocol(uri, subprotocols=[Subprotocol(SUBPROTOCOL)], max_size=_MAX_SIZE)
        self._transport: asyncio.Transport | None = None
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._arrived: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._lost: asyncio.Future[None] = self._loop.create_future()
        self._incoming = bytearray(_BUFFER)
        self._frames: list[Frame] = []
        self._partial: list[bytes] = []
        self._partial_text = False
        self._paused = False
        self._reading = True
        self._end: LinkClosed | None = None

    # What the link uses.

    async def wait_open(self) -> None:
        """Return when the handshake is done. Raises LinkRefused, LinkClosed or OSError."""
        await self._opened

    async def receive(self) -> list[Frame]:
        """Return the frames that have come, at least one; wait when there are none. Raises
        LinkClosed when the link has ended and all frames were taken. Cancelling loses nothing.
        """
        while not self._frames:
            if self._end is not None:
                raise self._end
            self._arrived = self._loop.create_future()
            try:
                await self._arrived
            finally:
                self._arrived = None
        frames, self._frames = self._frames, []
        if not self._reading and self._transport is not None and self._end is None:
            self._reading = True
            self._transport.resume_reading()
        return frames

    def send(self, frames: Iterable[Frame]) -> None:
        """Write these frames at once. On a link that has ended they are dropped: the next link
        starts from the level again.
        """
        if self._ws.state is not OPEN or self._end is not None:
            return
        for frame in frames:
            if isinstance(frame, str):
                self._ws.send_text(frame.encode())
            else:
                self._ws.send_binary(frame)
        self._flush()

    @property
    def writable(self) -> bool:
        """Whether the operating system still takes what is written."""
        return not self._paused

    async def wait_writable(self) -> None:
        """Return when `writable`, or when the link has ended."""
        if self._paused and self._end is None:
            self._drained = self._loop.create_future()
            await self._drained

    async def close(self, code: int, reason: str) -> None:
        """Close in order; give up waiting for the other side after a second."""
        if self._ws.state is OPEN and self._end is None:
            self._ws.send_close(code, reason)
            self._flush()
            try:
                async with asyncio.timeout(_CLOSE_WITHIN_S):
                    await asyncio.shield(self._lost)
            except TimeoutError:
                pass  # it is gone either way
        self.abort()

    def abort(self) -> None:
        """Drop the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the upgrade request. asyncio has set TCP_NODELAY; it is set here to be sure."""
        if not isinstance(transport, asyncio.Transport):
            raise AssertionError("a stream transport was asked for")  # noqa: TRY004 (unreachable)
        self._transport = transport
        transport.set_write_buffer_limits(high=_HIGH_WATER)
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ws.send_request(self._ws.connect())
        self._flush()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 (asyncio's signature)
        """Return where to put what comes: one buffer for good, instead of 256 KiB each time. A
        view, because asyncio's TLS reads into slices of it, and those of a bytearray are copies.
        """
        return memoryview(self._incoming)

    def buffer_updated(self, nbytes: int) -> None:
        """Take bytes; frames wait for `receive`."""
        self._ws.receive_data(self._incoming[:nbytes])
        for event in self._ws.events_received():
            if isinstance(event, Response):
                self._take_response()
            elif isinstance(event, WebSocketFrame):
                self._take_frame(event)
        self._flush()  # pongs and the answer to a close
        if self._ws.close_expected() and self._transport is not None:
            self._transport.close()
        if self._frames and self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)
        if len(self._frames) > _QUEUE and self._reading and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    def eof_received(self) -> None:
        """Take the end of the stream."""
        self._ws.receive_eof()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake whoever waits."""
        self._ws.receive_eof()
        received = self._ws.close_rcvd
        if received is not None:
            self._end = LinkClosed(received.code, received.reason)
        else:
            cause = exc or self._ws.parser_exc or self._ws.handshake_exc
            too_large = self._ws.close_sent is not None and isinstance(cause, ProtocolError)
            what = "a frame broke the rules" if too_large else "the connection broke"
            self._end = LinkClosed(None, f"{what}: {cause}" if cause else what)
        if not self._opened.done():
            self._opened.set_exception(exc or self._end)
        self._paused = False
        for waiter in (self._arrived, self._drained, self._lost):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    def pause_writing(self) -> None:
        """Note that the operating system takes no more for now."""
        self._paused = True

    def resume_writing(self) -> None:
        """Note that it takes more again."""
        self._paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def _take_response(self) -> None:
        error = self._ws.handshake_exc
        if self._opened.done():
            return
        if error is None and self._ws.subprotocol != SUBPROTOCOL:
            error = InvalidHandshake(f"the server does not speak {SUBPROTOCOL}")
        if error is None:
            self._opened.set_result(None)
        elif isinstance(error, InvalidStatus):
            status = error.response.status_code
            reason = error.response.reason_phrase
            self._opened.set_exception(LinkRefused(status, f"HTTP {status} {reason}"))
        else:
            self._opened.set_exception(LinkClosed(None, str(error)))

    def _take_frame(self, frame: WebSocketFrame) -> None:
        if frame.opcode in {Opcode.TEXT, Opcode.BINARY}:
            self._partial_text = frame.opcode is Opcode.TEXT
        elif frame.opcode is not Opcode.CONT:
            return  # ping, pong and close are the library's
        self._partial.append(bytes(frame.data))
        if not frame.fin:
            return
        whole = self._partial[0] if len(self._partial) == 1 else b"".join(self._partial)
        self._partial.clear()
        # What is no UTF-8 becomes U+FFFD, and then no message of ours: the codec says so.
        self._frames.append(whole.decode(errors="replace") if self._partial_text else whole)

    def _flush(self) -> None:
        if self._transport is None or self._transport.is_closing():
            self._ws.data_to_send()
            return
        data = self._ws.data_to_send()
        ends = bool(data) and data[-1] == b""
        if body := b"".join(data):
            self._transport.write(body)
        if ends and self._transport.can_write_eof():
            self._transport.write_eof()


def _is_address(host: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    except OSError:
        return False
    return True
