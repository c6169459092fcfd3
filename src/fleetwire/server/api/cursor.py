"""Cursors: opaque texts that say where a list goes on, and how much of a run's logs was read."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from fleetwire.server.api.errors import Unprocessable

CURSOR_BYTES: Final = 3 * 1024
"""A stream's cursor at most: it comes back as a header, and headers have a limit."""

_VERSION: Final = b"\x01"


class Read(NamedTuple):
    """How much of one task's log was read: of which attempt (its number), up to which offset."""

    number: int
    offset: int


def after(last: str) -> str:
    """Return the cursor of a list that goes on after this row (its id, or what it is sorted by)."""
    return _text(_VERSION + last.encode("utf-8"))


def parse_after(cursor: str | None) -> str | None:
    """Return what `after` was given. Raises Unprocessable."""
    if cursor is None:
        return None
    raw = _bytes(cursor)
    try:
        last = raw[1:].decode("utf-8")
    except UnicodeDecodeError:
        last = ""
    if raw[:1] != _VERSION or not last.isprintable() or not last:
        raise Unprocessable(
            "The cursor is not one of this list.",
            hint="Send the next_cursor of an earlier answer, or none.",
            field="cursor",
        )
    return last


def parse_number(cursor: str | None) -> int | None:
    """Return the number that `after` was given as text. Raises Unprocessable."""
    text = parse_after(cursor)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Unprocessable(
            "The cursor is not one of this list.",
            hint="Send the next_cursor of an earlier answer, or none.",
            field="cursor",
        )
    return int(text)


def vector(read: Mapping[int, Read]) -> str:
    """Return the cursor of a run's events: how much was read of each task, by its index.

    It need not be whole: what it leaves out is sent again, and the reader drops it. So where
    there are too many tasks the shortest logs are left out: they cost least to send again.
    """
    longest = sorted(read.items(), key=lambda item: -item[1].offset)
    kept: dict[int, Read] = {}
    size = 0
    for index, one in longest:
        size += len(_varint(index)) + len(_varint(one.number)) + len(_varint(one.offset))
        if size > CURSOR_BYTES or not one.offset:
            break
        kept[index] = one
    raw = bytearray(_VERSION)
    last = 0
    for index in sorted(kept):
        raw += _varint(index - last) + _varint(kept[index].number) + _varint(kept[index].offset)
        last = index
    return _text(bytes(raw))


def parse_vector(cursor: str | None) -> dict[int, Read]:
    """Return what a cursor of `vector` says; nothing for one that cannot be read.

    A reader that comes with a strange Last-Event-ID is sent everything, which it can use.
    """
    if not cursor:
        return {}
    try:
        raw = _bytes(cursor)
        if raw[:1] != _VERSION:
            return {}
        numbers = list(_varints(raw[1:]))
    except (Unprocessable, IndexError):
        return {}
    found: dict[int, Read] = {}
    index = 0
    for step, number, offset in _threes(numbers):
        index += step
        found[index] = Read(number, offset)
    return found


def _threes(numbers: list[int]) -> Iterable[tuple[int, int, int]]:
    return zip(numbers[::3], numbers[1::3], numbers[2::3], strict=False)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _varints(raw: bytes) -> Iterator[int]:
    at = 0
    while at < len(raw):
        number = shift = 0
        while True:
            byte = raw[at]
            at += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        yield number


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _bytes(cursor: str) -> bytes:
    try:
        return base64.b64decode(
            cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True
        )
    except (binascii.Error, UnicodeEncodeError):
        raise Unprocessable(
            "The cursor cannot be read.",
            hint="Send the next_cursor of an earlier answer, or none.",
            field="cursor",
        ) from None
