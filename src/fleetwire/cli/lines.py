"""Lines of several nodes on one screen: blocks of bytes in, prefixed whole lines out.

Work is done on blocks: a block with a thousand lines is one `replace`. A line stays whole as
long as it is shorter than LINE_BYTES; a longer one is shown in pieces as it comes, and where
another node's line comes between, it is broken there and goes on behind its prefix.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

LINE_BYTES: Final = 64 * 1024


class Source(NamedTuple):
    """One stream of one attempt."""

    attempt: str
    stream: str


class Lines:
    """Puts a prefix before each line. `write(stream, data)` takes the result."""

    def __init__(self, write: Callable[[str, bytes], None]) -> None:
        self._write = write
        self._partial: dict[Source, bytes] = {}
        self._open: Source | None = None

    def feed(self, source: Source, prefix: bytes, data: bytes) -> None:
        """Take the next bytes of a stream."""
        cut = data.rfind(b"\n") + 1
        if cut:
            self._emit(source, prefix, self._partial.pop(source, b"") + data[:cut])
            data = data[cut:]
        if data:
            partial = self._partial.pop(source, b"") + data
            if len(partial) >= LINE_BYTES:
                self._emit(source, prefix, partial)
            else:
                self._partial[source] = partial

    def finish(self, source: Source, prefix: bytes) -> None:
        """Show the rest of a stream that has ended without a newline, and give it one."""
        rest = self._partial.pop(source, b"")
        if rest:
            self._emit(source, prefix, rest + b"\n")
        elif self._open == source:
            self._emit(source, prefix, b"\n")

    def _emit(self, source: Source, prefix: bytes, data: bytes) -> None:
        head = prefix
        if self._open == source:
            head = b""
        elif self._open is not None:
            self._write(self._open.stream, b"\n")
        whole = data.endswith(b"\n")
        body = data[:-1] if whole else data
        shown = head + body.replace(b"\n", b"\n" + prefix)
        self._write(source.stream, shown + b"\n" if whole else shown)
        self._open = None if whole else source
