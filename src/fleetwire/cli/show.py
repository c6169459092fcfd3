"""Printing values: tables for people, JSON for programs, and the words between."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TextIO

from fleetwire.cli.visible import one_line, visible_json, visible_text

_MARKS: Final = {
    "succeeded": "32",
    "online": "32",
    "ok": "32",
    "failed": "31",
    "fail": "31",
    "timed_out": "31",
    "lost": "31",
    "refused": "31",
    "expired": "31",
    "offline": "31",
    "canceled": "33",
    "unstable": "33",
    "warn": "33",
    "running": "36",
}
_NAME_CHARS: Final = 40
SHORT_ID: Final = 13
"""Characters of a UUIDv7 that hold its time to the millisecond: enough to tell runs apart."""


def coloured(stream: TextIO, environ: Mapping[str, str] | None = None) -> bool:
    """Say whether colours may be used: a terminal, and neither NO_COLOR nor TERM=dumb."""
    environ = os.environ if environ is None else environ
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def mark(word: str, *, colour: bool) -> str:
    """Return a state or outcome in its colour."""
    code = _MARKS.get(word)
    return f"\x1b[{code}m{word}\x1b[0m" if colour and code else word


def say(text: str, to: TextIO | None = None) -> None:
    """Print a sentence (to stdout where nothing else is given), text of others made visible."""
    stream = sys.stdout if to is None else to
    stream.write(f"{visible_text(text)}\n")
    stream.flush()


def write_json(body: bytes) -> None:
    """Print JSON, as `shown_json` says."""
    sys.stdout.buffer.write(shown_json(body).rstrip(b"\n") + b"\n")
    sys.stdout.flush()


def shown_json(body: bytes) -> bytes:
    """Return JSON as it came, but for characters that a terminal would obey: those are escaped as
    JSON does it, which changes nothing for a program.
    """
    if body.isascii() and b"\x7f" not in body:
        return body
    return visible_json(body.decode("utf-8", "replace")).encode()


def write_list(body: bytes, output: str) -> int:
    """Print a list (a page of the API) as JSON, or with `jsonl` each of its items as one line of
    it; return the exit code.
    """
    if output == "json":
        write_json(body)
        return 0
    import msgspec

    from fleetwire.client.shapes import Page

    for item in msgspec.json.decode(body, type=Page[msgspec.Raw]).items:
        write_json(bytes(item))
    return 0


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; a column of states (its head is STATE, OUTCOME or LINK) is coloured."""
    colour = coloured(sys.stdout)
    shown = [[one_line(cell) for cell in row] for row in rows]
    widths = [
        max(len(head), *(len(row[index]) for row in shown)) if shown else len(head)
        for index, head in enumerate(heads)
    ]
    lines = ["  ".join(f"{head:{width}}" for head, width in zip(heads, widths, strict=True))]
    for row in shown:
        cells = [
            mark(cell, colour=colour and head in {"STATE", "OUTCOME", "LINK"})
            + " " * (width - len(cell))
            for head, cell, width in zip(heads, row, widths, strict=True)
        ]
        lines.append("  ".join(cells))
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in lines))


def facts(rows: Iterable[tuple[str, str | None]]) -> None:
    """Print name and value a line; None is left out."""
    known = [(one_line(name, _NAME_CHARS), value) for name, value in rows if value is not None]
    width = max((len(name) for name, _ in known), default=0)
    sys.stdout.write("".join(f"{name:{width}}  {one_line(value, 2000)}\n" for name, value in known))


def short(full_id: str) -> str:
    """Return the short form of an id."""
    return full_id[:SHORT_ID]


def when(time: str | None) -> str:
    """Return an RFC 3339 time to the second, for reading; a dash for none."""
    return "-" if not time else time[:19].replace("T", " ") + "Z"


def lasted(seconds: float | None) -> str:
    """Return a duration for reading; a dash for none."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.2f}s"
    if seconds < 100:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m{rest:02}s" if hours else f"{minutes}m{rest:02}s"


def size(count: int | None) -> str:
    """Return a number of bytes for reading; a dash for none."""
    if count is None:
        return "-"
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
