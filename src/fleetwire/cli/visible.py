r"""Making what a node writes safe to show.

A terminal obeys escape sequences: output of a node could retitle the window, paint over lines
above or reverse the reading order. Control characters (but newline and tab), the C1 controls
and the bidirectional formatting characters are shown as `\x1b` or `\u202e`; bytes that are not
UTF-8 as `\xff`. CR LF is one line end.
"""

from __future__ import annotations

import codecs
import re
from typing import Final

_SAFE_BYTES: Final = bytes(range(0x20, 0x7F)) + b"\n\t"
_UNSAFE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)


class Visible:
    """Bytes of one stream in any split, shown bytes out. The common case, plain ASCII, is one
    pass of `bytes.translate` over the block and no copy.
    """

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._holding = False
        self._carriage = False

    def feed(self, block: bytes) -> bytes:
        """Return what is to be shown for the next bytes; up to 3 bytes of an unfinished
        character, or a CR that may belong to a line end, are held back.
        """
        if not self._holding and not block.translate(None, _SAFE_BYTES):
            return block
        text = self._decode.decode(block)
        if self._carriage:
            text = f"\r{text}"
        self._carriage = text.endswith("\r")
        if self._carriage:
            text = text[:-1]
        self._holding = self._carriage or bool(self._decode.getstate()[0])
        return _shown(text)

    def finish(self) -> bytes:
        """Return what was held back, at the end of the stream."""
        text = ("\r" if self._carriage else "") + self._decode.decode(b"", final=True)
        self._carriage = self._holding = False
        return _shown(text)


def _shown(text: str) -> bytes:
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    return _UNSAFE.sub(_escape, text).encode("utf-8", "backslashreplace")


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def visible_text(text: str) -> str:
    """Return a text of the server or a node as it may be shown in a message or a table."""
    return _UNSAFE.sub(_escape, text)


def one_line(text: str, most: int = 200) -> str:
    """Return a text for a cell of a table: visible, on one line, cut at `most` characters."""
    text = visible_text(" ".join(text.split()))
    return text if len(text) <= most else f"{text[: most - 1]}…"
