"""Frames to values and back, with every size checked before anything is built from it."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

import msgspec

from fleetwire.core import limits
from fleetwire.core.chunks import BODY_MAX
from fleetwire.core.errors import FleetwireError
from fleetwire.core.ids import id_bytes, id_from_bytes, is_id
from fleetwire.protocol.messages import FromAgent, FromServer, Message

LOG_KIND: Final = 1
FLAG_ZSTD: Final = 1
HEADER: Final = struct.Struct("<BBHIQ16s")


class BadFrame(FleetwireError):
    """A peer sent something that is not of the protocol; the link is closed."""

    code = "bad-frame"


class LogFrame(NamedTuple):
    """A binary log frame: `body` is still compressed when `zstd` is set; `raw_length` is what
    it must decompress to.
    """

    attempt: str
    offset: int
    raw_length: int
    zstd: bool
    body: bytes | memoryview


_encoder = msgspec.json.Encoder()
_from_agent: msgspec.json.Decoder[FromAgent] = msgspec.json.Decoder(FromAgent)
_from_server: msgspec.json.Decoder[FromServer] = msgspec.json.Decoder(FromServer)


def encode(message: Message) -> str:
    """Return the text frame of a control message."""
    text = _encoder.encode(message).decode()
    if len(text) > limits.CONTROL_FRAME_BYTES:
        raise AssertionError(f"a {type(message).__name__} of {len(text)} bytes must be split")
    return text


def decode_from_agent(text: str) -> FromAgent:
    """Return the message in an agent's text frame, or raise BadFrame."""
    try:
        return _from_agent.decode(_sized(text))
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadFrame(f"The agent's frame is not a message: {error}.") from error


def decode_from_server(text: str) -> FromServer:
    """Return the message in a server's text frame, or raise BadFrame."""
    try:
        return _from_server.decode(_sized(text))
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadFrame(f"The server's frame is not a message: {error}.") from error


def encode_log(attempt: str, offset: int, raw_length: int, body: bytes, *, zstd: bool) -> bytes:
    """Return a binary log frame."""
    flags = FLAG_ZSTD if zstd else 0
    return HEADER.pack(LOG_KIND, flags, 0, raw_length, offset, id_bytes(attempt)) + body


def decode_log(frame: bytes) -> LogFrame:
    """Return the log frame in a binary frame, or raise BadFrame. The body is a view."""
    if len(frame) < HEADER.size:
        raise BadFrame(f"A binary frame of {len(frame)} bytes has no header.")
    kind, flags, reserved, raw_length, offset, raw_id = HEADER.unpack_from(frame)
    if kind != LOG_KIND or flags & ~FLAG_ZSTD or reserved:
        raise BadFrame(f"A binary frame of kind {kind}, flags {flags} is not of this version.")
    if raw_length > BODY_MAX or len(frame) > BODY_MAX + HEADER.size:
        raise BadFrame(f"A log chunk of {max(raw_length, len(frame))} bytes is too large.")
    if offset > 2**62:
        raise BadFrame("A log offset is out of range.")
    attempt = id_from_bytes(raw_id)
    if not is_id(attempt):
        raise AssertionError("16 bytes always make an id")
    body = memoryview(frame)[HEADER.size :]
    return LogFrame(attempt, offset, raw_length, bool(flags & FLAG_ZSTD), body)


def _sized(text: str) -> str:
    # A str of n characters is at least n bytes; the encoded size is checked only when near.
    if len(text) > limits.CONTROL_FRAME_BYTES:
        raise BadFrame(
            f"A control frame of {len(text)} characters is larger than "
            f"{limits.CONTROL_FRAME_BYTES} bytes."
        )
    return text
