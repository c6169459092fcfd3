"""A chunk of a log as it travels and as it is stored: a table of pieces, then their payload.

    count u32, count x (stream u8, length u32, time_us u64), payload        little endian

The log's coordinate counts the bytes of gaps too, although they stand nowhere (architecture
5.1). Everything is checked before anything is built from it: a hostile node may send this.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from fleetwire.core import limits
from fleetwire.core.errors import FleetwireError

GAP: Final = 0
STREAMS: Final = frozenset({GAP, 1, 2})

# So that every database can hold it, and JavaScript exactly (in the year 2255).
TIME_MAX: Final = 2**53

_COUNT: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<BIQ")
BODY_MAX: Final = _COUNT.size + limits.CHUNK_PIECES * _ENTRY.size + limits.CHUNK_PAYLOAD_BYTES


class BadChunk(FleetwireError):
    """A node sent a chunk that is not of this form; nothing of it was stored."""

    code = "bad-chunk"


class Piece(NamedTuple):
    """A run of bytes of one stream, read at `time_us`. Stream 0 is a gap: `length` bytes of the
    log that were dropped at the source and have no payload.
    """

    stream: int
    length: int
    time_us: int


def encode(pieces: Sequence[Piece], payloads: Iterable[bytes | memoryview]) -> bytes:
    """Return a chunk's body, before compression."""
    parts: list[bytes | memoryview] = [_COUNT.pack(len(pieces))]
    parts.extend(_ENTRY.pack(*piece) for piece in pieces)
    parts.extend(payloads)
    return b"".join(parts)


def decode(body: bytes) -> tuple[list[Piece], memoryview]:
    """Return the pieces and the payload of a body, or raise BadChunk: the sums must agree and
    nothing may be left over.
    """
    if not _COUNT.size <= len(body) <= BODY_MAX:
        raise BadChunk(f"A chunk body of {len(body)} bytes has a wrong size.")
    (count,) = _COUNT.unpack_from(body)
    start = _COUNT.size + count * _ENTRY.size
    if not 1 <= count <= limits.CHUNK_PIECES or start > len(body):
        raise BadChunk(f"A chunk of {count} pieces is empty, too large or cut off.")
    pieces = list(map(Piece._make, _ENTRY.iter_unpack(memoryview(body)[_COUNT.size : start])))
    payload = memoryview(body)[start:]
    present = 0
    for piece in pieces:
        if piece.stream not in STREAMS or not piece.length or piece.time_us > TIME_MAX:
            raise BadChunk(f"A chunk has an impossible piece: {piece}.")
        if piece.stream != GAP:
            present += piece.length
    if present != len(payload):
        raise BadChunk(f"A chunk's pieces name {present} bytes, its payload has {len(payload)}.")
    if present > limits.CHUNK_PAYLOAD_BYTES:
        raise BadChunk(
            f"A chunk has {present} bytes; at most {limits.CHUNK_PAYLOAD_BYTES} are allowed."
        )
    return pieces, payload
