"""The chunk body's format (seams 3), checked without trust: what a hostile node may send.

``zstd(count u32, count x (stream u8, length u32, time_us u64), payload)``, little endian. The
body is stored as it came; only where it overlaps what is stored is the rest encoded anew.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import zstandard

from fleetwire.core import chunks
from fleetwire.core.chunks import BODY_MAX, GAP, BadChunk, Piece

MAX_LOG = 1 << 53
"""Above this an offset is not exact in JavaScript, and no log is that long."""

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

    Memory stays below `BODY_MAX` whatever the frame claims. Raises `BadChunk`.
    """
    pieces, payload = chunks.decode(_decompress(body))
    return Body(pieces, bytes(payload))


def encode(pieces: list[Piece], data: bytes) -> bytes:
    """Return the wire body of `pieces` and their payload."""
    return compress(chunks.encode(pieces, [data]))


def compress(raw: bytes | memoryview) -> bytes:
    """Return the wire body of a chunk that came without compression."""
    codec = getattr(_codecs, "compressor", None)
    if codec is None:
        codec = _codecs.compressor = zstandard.ZstdCompressor(level=_LEVEL)
    body: bytes = codec.compress(raw)
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
        if claimed > BODY_MAX:
            raise BadChunk(f"A chunk claims {claimed} bytes; at most {BODY_MAX} are allowed.")
        raw: bytes = codec.decompress(body, max_output_size=BODY_MAX, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise BadChunk(f"A chunk body is no whole zstd frame ({error}).") from error
    return raw
