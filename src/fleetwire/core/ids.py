"""Typed ids. An id is a UUIDv7 in its usual lower-case text form: time-ordered, so that a list
sorted by id is sorted by age, and safe as a file name (research V30: an id that became a path).
"""

from __future__ import annotations

import re
from typing import Final, NewType

from fleetwire.core.errors import BadId

RunId = NewType("RunId", str)
TaskId = NewType("TaskId", str)
AttemptId = NewType("AttemptId", str)
NodeId = NewType("NodeId", str)
UserId = NewType("UserId", str)
TokenId = NewType("TokenId", str)

RANDOM_BYTES: Final = 10
_FORM: Final = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_ID = re.compile(_FORM)
WHOLE: Final = rf"\A{_FORM}\Z"
"""An id and nothing else, as a pattern that is searched for."""
PREFIX = re.compile(r"[0-9a-f][0-9a-f-]{5,35}")


def make_id(now_us: int, random: bytes) -> str:
    """Return a UUIDv7 (RFC 9562, 5.7) of a time, microseconds since 1970, and 10 random bytes."""
    if len(random) != RANDOM_BYTES:
        raise AssertionError("an id takes exactly 10 random bytes")
    value = ((now_us // 1000) & (2**48 - 1)) << 80
    value |= 0x7 << 76
    value |= (random[0] << 4 | random[1] >> 4) << 64
    value |= 0b10 << 62
    value |= int.from_bytes(random[2:], "big") & (2**62 - 1)
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def is_id(text: str) -> bool:
    """Say whether the text has exactly the form of an id."""
    return _ID.fullmatch(text) is not None


def parse_id(text: str, *, field: str | None = None) -> str:
    """Return the text if it is an id, else raise BadId."""
    if not is_id(text):
        shown = text if len(text) <= 64 else text[:61] + "..."
        raise BadId(
            f"{shown!r} is not an id.",
            hint="An id looks like 0190b7f0-1c2d-7abc-8def-0123456789ab; lists show them.",
            field=field,
        )
    return text


def time_of(id_: str) -> int:
    """Return when an id was made, microseconds since 1970, to the millisecond before."""
    return int(id_[:8] + id_[9:13], 16) * 1000


def id_bytes(text: str) -> bytes:
    """Return the 16 bytes of an id, as binary frames carry it."""
    return bytes.fromhex(text.replace("-", ""))


def id_from_bytes(raw: bytes) -> str:
    """Return the id that these 16 bytes are."""
    digits = raw.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
