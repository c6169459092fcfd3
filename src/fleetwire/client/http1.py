"""HTTP/1.1 as this client speaks it: one connection, one request after another.

Why not `http.client`: it reads headers with the mail library, which is a third of what a command
imports and most of what a small request costs here. This is the part of RFC 9112 that a client
of one known server needs: bodies by length, by chunks, or up to the end of the connection.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import ssl

HEAD_BYTES: Final = 64 * 1024
"""Status line and headers of an answer, or the trailers after a chunked one, at most."""

BLOCK: Final = 256 * 1024
_DEFAULT_PORT: Final = {True: 443, False: 80}
_TARGET: Final = re.compile(r"[\x21-\x7e]+")
_NO_BODY: Final = frozenset({204, 304})


class BadHttp(Exception):
    """What came is not HTTP, or cannot be sent as such."""


class Cut(BadHttp):
    """The connection was closed in the middle of an answer."""


class Disconnected(ConnectionResetError):
    """The connection was closed before an answer began."""


class Headers:
    """The headers of an answer. Names are compared without regard to case."""

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        self._fields = fields

    def get(self, name: str) -> str | None:
        """Return the first value of a header, or None."""
        return next(iter(self.get_all(name)), None)

    def get_all(self, name: str) -> list[str]:
        """Return all values of a header."""
        wanted = name.lower()
        return [value for known, value in self._fields if known == wanted]

    def media_type(self) -> str:
        """Return what the body is, without parameters; text/plain where it is not said."""
        return (self.get("content-type") or "text/plain").partition(";")[0].strip().lower()


class Place(NamedTuple):
    """Where a server is."""

    host: str
    port: int | None
    tls: bool

    def header(self) -> str:
        """Return it as the value of `Host`."""
        host = self.host if self.host.isascii() else self.host.encode("idna").decode()
        host = f"[{host}]" if ":" in host else host
        usual = self.port is None or self.port == _DEFAULT_PORT[self.tls]
        return host if usual else f"{host}:{self.port}"


class Wire:
    """One connection. After an error it is of no use but to be closed. `host` is the value of the
    header that names the server.
    """

    def __init__(self, connected: socket.socket, host: str) -> None:
        self._socket = connected
        self._host = host
        self._held = b""
        self._at = 0

    @staticmethod
    def open(place: Place, timeout: float, secured: ssl.SSLContext | None = None) -> Wire:
        """Connect; `timeout` is seconds, `secured` how a TLS server is verified. Raises OSError."""
        # An ASCII host as bytes: as text Python would import its whole IDNA tables first, 5 ms of
        # every command. The declared type knows only text; getaddrinfo documents both.
        host: str | bytes = place.host.encode("ascii") if place.host.isascii() else place.host
        address: tuple[str, int] = (host, place.port or _DEFAULT_PORT[place.tls])  # type: ignore[assignment]
        connected = socket.create_connection(address, timeout)
        try:
            # The 40 ms of delayed ACK against Nagle would be most of a run's latency (targets).
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if secured is not None:
                connected = secured.wrap_socket(connected, server_hostname=place.host)
        except BaseException:
            connected.close()
            raise
        return Wire(connected, place.header())

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def ask(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        timeout: float,
    ) -> Answering:
        """Send a request and return its answer, of which the head has come. `timeout` is the
        seconds without a byte after which it is given up. Raises OSError and BadHttp.
        """
        self._socket.settimeout(timeout)
        self._socket.sendall(self._request(method, target, headers, body))
        while True:
            version, status = self._status()
            fields = self._fields()
            if status >= 200:  # else it is an interim answer: the final one follows
                return Answering(self, method, version, status, Headers(fields))

    def _request(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None
    ) -> bytes:
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self._host}", "Accept-Encoding: identity"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body is not None or method in {"POST", "PUT", "PATCH"}:
            lines.append(f"Content-Length: {len(body or b'')}")
        if not _TARGET.fullmatch(target) or any("\r" in line or "\n" in line for line in lines):
            raise BadHttp("the request cannot be written as HTTP")
        return "\r\n".join([*lines, "", ""]).encode() + (body or b"")

    def _status(self) -> tuple[str, int]:
        try:
            line = self.line(HEAD_BYTES)
        except Cut:
            raise Disconnected("the connection was closed") from None
        version, _, rest = line.partition(" ")
        code = rest[:3]
        if not version.startswith("HTTP/1.") or len(code) != 3 or not code.isdecimal():
            raise BadHttp("no status line")
        return version, int(code)

    def _fields(self) -> list[tuple[str, str]]:
        fields = []
        left = HEAD_BYTES
        while line := self.line(left):
            left -= len(line)
            name, colon, value = line.partition(":")
            if not colon:
                raise BadHttp("a header without a colon")
            fields.append((name.lower(), value.strip()))
        return fields

    # What an answer reads with.

    def line(self, most: int) -> str:
        """Return the next line, without its end, of at most `most` bytes."""
        while (end := self._held.find(b"\n", self._at)) < 0:
            if len(self._held) - self._at > most:
                raise BadHttp("an endless line")
            more = self._socket.recv(BLOCK)
            if not more:
                raise Cut("the connection was closed")
            self._held = self._held[self._at :] + more
            self._at = 0
        if end - self._at > most:
            raise BadHttp("the head is too long")
        line = self._held[self._at : end]
        self._at = end + 1
        return line.rstrip(b"\r").decode("latin-1")

    def some(self, most: int) -> bytes:
        """Return the next bytes, at most so many, as soon as there are any; b"" at the end."""
        if self._at == len(self._held):
            more = self._socket.recv(BLOCK)
            if len(more) <= most:
                return more
            self._held, self._at = more, 0
        block = self._held[self._at : self._at + most]
        self._at += len(block)
        return block


class Answering:
    """An answer whose body is read. `is_whole` once its end was read, and `keeps` says whether
    the connection may carry another request then.
    """

    def __init__(
        self, wire: Wire, method: str, version: str, status: int, headers: Headers
    ) -> None:
        self.status = status
        self.headers = headers
        self.is_whole = False
        self._wire = wire
        self._left: int | None = None  # of the body, or of the chunk; None: up to the end
        self._chunked = (headers.get("transfer-encoding") or "").lower() == "chunked"
        self._in_chunk = False
        if method == "HEAD" or status in _NO_BODY:
            self._chunked, self._left, self.is_whole = False, 0, True
        elif self._chunked:
            self._left = 0
        elif (length := headers.get("content-length")) is not None:
            if not length.isdecimal():
                raise BadHttp("a length that is no number")
            self._left = int(length)
            self.is_whole = not self._left
        closes = (headers.get("connection") or "").lower() == "close"
        self.keeps = version == "HTTP/1.1" and not closes and self._left is not None

    def read(self, most: int) -> bytes:
        """Return the body, or more than `most` bytes of it."""
        blocks = []
        size = 0
        while size <= most and (block := self.read1(BLOCK)):
            blocks.append(block)
            size += len(block)
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)

    def read1(self, most: int) -> bytes:
        """Return the next bytes of the body as soon as there are any; b"" at its end. Raises Cut
        where the connection ends before the body.
        """
        if self.is_whole:
            return b""
        if self._chunked and not self._left and not self._next_chunk():
            self.is_whole = True
            return b""
        block = self._wire.some(most if self._left is None else min(most, self._left))
        if self._left is None:
            self.is_whole = not block
            return block
        if not block:
            raise Cut("the connection was closed")
        self._left -= len(block)
        if not self._left and not self._chunked:
            self.is_whole = True
        return block

    def _next_chunk(self) -> bool:
        """Read the size of the next chunk; say whether there is one."""
        if self._in_chunk and self._wire.line(1):  # no more than the CR of its end
            raise BadHttp("a chunk that is longer than it says")
        text = self._wire.line(HEAD_BYTES).partition(";")[0].strip()
        try:
            self._left = int(text, 16)
        except ValueError:
            raise BadHttp("a chunk without a size") from None
        if self._left < 0:
            raise BadHttp("a chunk without a size")
        self._in_chunk = True
        left = HEAD_BYTES
        while not self._left and (line := self._wire.line(left)):
            left -= len(line)  # trailers, which say nothing to us
        return bool(self._left)
