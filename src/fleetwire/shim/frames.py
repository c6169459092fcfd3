"""The frame: how log bytes stand in a piece of the spool (docs/seams.md, "Frame").

No IO here. A frame is 28 bytes of header, little endian, and its payload:

    magic u16 = 0x4C46, stream u8, flags u8 = 0, length u32, offset u64, time_us u64, crc32 u32

`stream` is 1 (stdout), 2 (stderr) or 0 (gap: `length` bytes were dropped, no payload follows).
`offset` is the log coordinate of the first byte (architecture 5.1). The CRC-32 is over the header
with crc = 0 and the payload. A torn or wrong frame ends the readable log.
"""

import struct
import zlib
from typing import NamedTuple

MAGIC = 0x4C46
GAP, STDOUT, STDERR = 0, 1, 2
HEADER_BYTES = 28
MAX_PAYLOAD = 256 * 1024
MAX_GAP = 0xFFFF_FFFF

_HEADER = struct.Struct("<HBBIQQI")
_NO_CRC = b"\0\0\0\0"


class Frame(NamedTuple):
    """A part of the log: `payload` bytes of a stream, or `gap` bytes that were dropped."""

    stream: int
    time_us: int
    offset: int
    payload: bytes | memoryview
    gap: int

    @property
    def length(self) -> int:
        """How many bytes of the log coordinate this covers."""
        return self.gap or len(self.payload)

    def cut(self, offset: int) -> "Frame":
        """The same frame without what lies below `offset`, which must lie inside it."""
        skip = offset - self.offset
        if skip == 0:
            return self
        if self.gap:
            return self._replace(offset=offset, gap=self.gap - skip)
        return self._replace(offset=offset, payload=self.payload[skip:])


def header(stream: int, length: int, offset: int, time_us: int, payload: memoryview) -> bytes:
    """The header of a frame; for a gap the payload is empty and `length` says what is missing."""
    bare = _HEADER.pack(MAGIC, stream, 0, length, offset, time_us, 0)
    crc = zlib.crc32(payload, zlib.crc32(bare))
    return bare[:-4] + crc.to_bytes(4, "little")


def parse(data: memoryview, position: int, offset: int) -> tuple[Frame, int] | int | None:
    """The frame at `position`, which must carry the log offset `offset`.

    Returns the frame and the position behind it; or how many bytes from `position` are needed to
    see it whole; or None when there is no frame and never will be (wrong magic, offset or CRC).
    """
    if len(data) - position < HEADER_BYTES:
        return HEADER_BYTES
    magic, stream, flags, length, at, time_us, crc = _HEADER.unpack_from(data, position)
    body = 0 if stream == GAP else length
    if magic != MAGIC or stream > STDERR or flags or at != offset or body > MAX_PAYLOAD:
        return None
    if not length:
        return None  # an empty frame would let a reader stand still for ever
    start = position + HEADER_BYTES
    end = start + body
    if len(data) < end:
        return HEADER_BYTES + int(body)
    payload = data[start:end]
    bare = zlib.crc32(_NO_CRC, zlib.crc32(data[position : start - 4]))
    if zlib.crc32(payload, bare) != crc:
        return None
    gap = length if stream == GAP else 0
    return Frame(stream, time_us, offset, payload, gap), end
