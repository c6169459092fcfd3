r"""Making what a node writes safe to show: `core.visible` for texts, `Visible` for streams.

Bytes that are not UTF-8 are shown as `\xff`; CR LF is one line end.
"""

from __future__ import annotations

import codecs
from typing import Final

from fleetwire.core.visible import one_line, visible_json, visible_text

__all__ = ["Visible", "one_line", "visible_json", "visible_text"]

_SAFE_BYTES: Final = bytes(range(0x20, 0x7F)) + b"\n\t"


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
    return visible_text(text).encode("utf-8", "backslashreplace")
