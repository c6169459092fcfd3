"""Frames of the spool into chunks of the wire. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from fleetwire.core import chunks, limits
from fleetwire.core.chunks import GAP, Piece
from fleetwire.shim.spool import Frame

# Room for what zstd adds to bytes that it cannot make smaller, and for a full table.
PAYLOAD_BYTES: Final = limits.CHUNK_PAYLOAD_BYTES - 64 * limits.KIB
# Frames of one stream that were read within a millisecond are one piece: times are shown in
# milliseconds, and a program that writes byte by byte must not double its log by its table.
_SAME_US: Final = 1000


class Chunk(NamedTuple):
    """A chunk body that covers the log from `offset` to `end`."""

    offset: int
    end: int
    body: bytes


def pack(frames: Sequence[Frame]) -> Iterator[Chunk]:
    """Yield the chunks that carry these consecutive frames, in order."""
    pieces: list[Piece] = []
    payloads: list[bytes | memoryview] = []
    size = 0
    start = end = frames[0].offset if frames else 0
    for frame in frames:
        if pieces and (
            size + len(frame.payload) > PAYLOAD_BYTES or len(pieces) == limits.CHUNK_PIECES
        ):
            yield Chunk(start, end, chunks.encode(pieces, payloads))
            pieces, payloads, size, start = [], [], 0, end
        length = frame.gap or len(frame.payload)
        last = pieces[-1] if pieces else None
        if (
            last is not None
            and last.stream == frame.stream != GAP
            and 0 <= frame.time_us - last.time_us < _SAME_US
        ):
            pieces[-1] = last._replace(length=last.length + length)
        else:
            pieces.append(Piece(frame.stream, length, frame.time_us))
        if not frame.gap:
            payloads.append(frame.payload)
            size += len(frame.payload)
        end += length
    if pieces:
        yield Chunk(start, end, chunks.encode(pieces, payloads))
