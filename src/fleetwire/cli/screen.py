"""Where output goes: two descriptors and, on a terminal, a progress line below them.

On a terminal a thread redraws the progress line now and then, so that waiting is visible; in
a pipe there is neither line nor thread. Data is written as it comes, in whole blocks.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

STDERR: Final = "stderr"
_ERASE: Final = b"\r\x1b[K"
_TICK_S: Final = 0.5
_FLUSH_BYTES: Final = 256 * 1024


class Screen:
    """Output of one command. `terminal` says whether stderr is one and may show progress.

    Args:
        out: descriptor of stdout.
        err: descriptor of stderr.
        progress: returns the progress line's text for a width; None for no progress line.
    """

    def __init__(
        self, out: int = 1, err: int = 2, *, progress: Callable[[int], str] | None = None
    ) -> None:
        self._out = out
        self._err = err
        self._progress = progress
        self._lock = threading.Lock()
        self._drawn = b""
        self._fresh_line = True
        self._pending: list[bytes] = []
        self._pending_to = out
        self._size = 0
        self._closed = threading.Event()
        self._ticker: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._ticker = threading.Thread(target=self._tick, daemon=True, name="progress")
            self._ticker.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write what is pending and take the progress line away."""
        self._closed.set()
        if self._ticker is not None and self._ticker.is_alive():
            self._ticker.join()
        self._progress = None
        self.flush()
        with self._lock:
            self._erase()

    def write(self, stream: str, data: bytes) -> None:
        """Add output; it is written at the next `flush`, or now when there is much."""
        to = self._err if stream == STDERR else self._out
        if to != self._pending_to and self._pending:
            self.flush()
        self._pending_to = to
        self._pending.append(data)
        self._size += len(data)
        if self._size >= _FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is pending, above the progress line."""
        with self._lock:
            if self._pending:
                pending = self._pending
                data = pending[0] if len(pending) == 1 else b"".join(pending)
                self._pending = []
                self._size = 0
                if data:
                    self._erase()
                    self._fresh_line = data.endswith(b"\n")
                    write_all(self._pending_to, data)
            self._draw()

    def end_line(self) -> None:
        """Give what was written last a newline, if it has none."""
        self.flush()
        if not self._fresh_line:
            self.write("stdout", b"\n")

    def say(self, line: str) -> None:
        """Write a line of our own to stderr."""
        self.flush()
        with self._lock:
            self._erase()
            start = "" if self._fresh_line else "\n"
            self._fresh_line = True
            write_all(self._err, f"{start}{line}\n".encode("utf-8", "backslashreplace"))

    def _tick(self) -> None:
        while not self._closed.wait(_TICK_S):
            with self._lock:
                self._draw()

    def _draw(self) -> None:
        # An unfinished line of output is left alone: the cursor stands in it.
        if self._progress is None or not self._fresh_line or self._closed.is_set():
            return
        text = self._progress(self._width()).encode("utf-8", "backslashreplace")
        if text != self._drawn:
            write_all(self._err, _ERASE + text)
            self._drawn = text

    def _erase(self) -> None:
        if self._drawn:
            write_all(self._err, _ERASE)
            self._drawn = b""

    def _width(self) -> int:
        try:
            return os.get_terminal_size(self._err).columns or 80
        except OSError:
            return 80


def write_all(descriptor: int, data: bytes) -> None:
    """Write all bytes, waiting for a reader that is slower (also on a non-blocking pipe)."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            select.select([], [descriptor], [])
