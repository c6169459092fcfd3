"""The chunk body's format (seams 3), checked without trust: what a hostile node may send.

``zstd(count u32, count x (stream u8, length u32, time_us u64), payload)``, little endian. The
body is stored as it came; only where it overlaps what is stored is the rest encoded anew.
"""

from __future__ import annotations

import struct
import threading
from typing import NamedTuple

import zstandard

from fleetwire.server.logs.base import GAP, MAX_PAYLOAD, MAX_PIECES, BadChunk, Piece

_COUNT = struct.Struct("<I")
_PIECE = struct.Struct("<BIQ")

MAX_BODY = _COUNT.size + MAX_PIECES * _PIECE.size + MAX_PAYLOAD
"""Bytes of a chunk body before compression, at most."""

MAX_LOG = 1 << 53
"""Above this an offset is not exact in JavaScript, and no log is that long."""

MAX_TIME = 1 << 53
"""Microseconds since 1970 at most (in the year 2255), so that every database can hold them."""

_LEVEL = 1

_codecs = threading.local()  # zstandard's objects serve one thread each


class Body(NamedTuple):
    """A decoded chunk body."""

    pieces: list[Piece]
    data: bytes

    @property
    def length(self) -> int:
        """Log bytes covered, gaps included."""
        return sum(piece.length for piece in self.pieces)

    @property
    def is_open(self) -> bool:
        """Whether the last line goes on after the last byte (a gap counts as a line's part)."""
        return self.pieces[-1].stream == GAP or not self.data.endswith(b"\n")


def decode(body: bytes) -> Body:
    """Return the pieces and the payload of a wire body.

    Memory stays below `MAX_BODY` whatever the frame claims. Raises `BadChunk`.
    """
    raw = _decompress(body)
    if len(raw) < _COUNT.size:
        raise BadChunk(f"A chunk body of {len(raw)} bytes is too short for its piece count.")
    (count,) = _COUNT.unpack_from(raw)
    if not 1 <= count <= MAX_PIECES:
        raise BadChunk(f"A chunk has {count} pieces; from 1 to {MAX_PIECES} are allowed.")
    start = _COUNT.size + count * _PIECE.size
    if len(raw) < start:
        raise BadChunk(f"A chunk body of {len(raw)} bytes is too short for {count} pieces.")
    pieces = list(map(Piece._make, _PIECE.iter_unpack(memoryview(raw)[_COUNT.size : start])))
    payload = 0
    for piece in pieces:
        if piece.stream > 2:
            raise BadChunk(f"A chunk has a piece of stream {piece.stream}; there are 0, 1 and 2.")
        if piece.time_us > MAX_TIME:
            raise BadChunk(f"A chunk has a piece of the time {piece.time_us}, which is no time.")
        if not piece.length:
            raise BadChunk("A chunk has a piece of no bytes.")
        if piece.stream != GAP:
            payload += piece.length
    if payload != len(raw) - start:
        raise BadChunk(
            f"A chunk's pieces name {payload} bytes, but its payload has {len(raw) - start}."
        )
    if payload > MAX_PAYLOAD:
        raise BadChunk(f"A chunk has {payload} bytes; at most {MAX_PAYLOAD} are allowed.")
    return Body(pieces, raw[start:])


def encode(pieces: list[Piece], data: bytes) -> bytes:
    """Return the wire body of `pieces` and their payload."""
    table = b"".join(_PIECE.pack(*piece) for piece in pieces)
    codec = getattr(_codecs, "compressor", None)
    if codec is None:
        codec = _codecs.compressor = zstandard.ZstdCompressor(level=_LEVEL)
    body: bytes = codec.compress(_COUNT.pack(len(pieces)) + table + data)
    return body


def cut(body: Body, start: int, stop: int) -> Body:
    """Return the part of `body` from log byte `start` to `stop`, relative to its first."""
    pieces: list[Piece] = []
    at = data_at = data_start = data_stop = 0
    for piece in body.pieces:
        low, high = max(start - at, 0), min(stop - at, piece.length)
        at += piece.length
        present = piece.stream != GAP
        if low < high:
            if present:
                if not data_stop:
                    data_start = data_at + low
                data_stop = data_at + high
            pieces.append(Piece(piece.stream, high - low, piece.time_us))
        if present:
            data_at += piece.length
    return Body(pieces, body.data[data_start:data_stop])


def _decompress(body: bytes) -> bytes:
    codec = getattr(_codecs, "decompressor", None)
    if codec is None:
        codec = _codecs.decompressor = zstandard.ZstdDecompressor()
    try:
        # The frame's own claim decides how much memory zstandard takes: look at it first.
        claimed = zstandard.frame_content_size(body)
        if claimed > MAX_BODY:
            raise BadChunk(f"A chunk claims {claimed} bytes; at most {MAX_BODY} are allowed.")
        raw: bytes = codec.decompress(body, max_output_size=MAX_BODY, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise BadChunk(f"A chunk body is no whole zstd frame ({error}).") from error
    return raw
