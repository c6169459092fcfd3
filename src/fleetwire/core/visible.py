r"""Text of others, made safe to show: the one rule for the command line and for logs.

A terminal obeys escape sequences: text of a node could retitle the window, paint over lines above
or reverse the reading order. Control characters (but newline and tab), the C1 controls, the
characters that turn the reading order, line separators that are no newline, and characters that
cannot be seen at all though they carry text (tags, annotations) are shown as `\x1b`, `\u202e` or
`\U000e0041`. What joins or separates letters of a script (U+200C, U+200D) stays.
"""

from __future__ import annotations

import re
from typing import Final

UNSAFE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0001\U000e0020-\U000e007f]"
)


def visible_text(text: str) -> str:
    """Return a text as it may be shown; newlines and tabs stay."""
    return UNSAFE.sub(_escape, text)


def one_line(text: str, most: int = 200) -> str:
    """Return a text for one line: visible, without newlines, cut at `most` characters. What
    begins a line of ours, a time or a name, can then not be written by somebody else.
    """
    text = visible_text(" ".join(text.split()))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def visible_json(text: str) -> str:
    r"""Return JSON that means the same, in which such characters are written as `\u202e`.

    They can only stand in strings: of what JSON has between them only space, newline, tab and CR
    are no ordinary characters, and a CR is left as it is by no encoder of ours.
    """
    return UNSAFE.sub(_json_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code == 0x0D:
        return " "  # between values; in a string it is escaped already
    if code < 0x10000:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
