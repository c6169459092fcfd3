"""Child processes of `fleetwire up`: started, watched, started again, ended.

Each child gets the reading end of a pipe whose other end only `up` holds: when `up` is killed,
even by KILL, the children see the end of it and leave (`--parent-fd`). Children have a session
of their own, so that the terminal's Ctrl-C reaches `up` alone, which ends them in order.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType
from typing import Final, Self

RESTART_S: Final = 1.0
_KEEP_LOG_BYTES: Final = 16 * 1024 * 1024


class Child:
    """One daemon: `fleetwire WORDS ...`, its output in a file of its own."""

    def __init__(self, name: str, words: Sequence[str], log: str) -> None:
        self.name = name
        self.words = list(words)
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self.ended_at: float | None = None

    def start(self, parent_fd: int) -> None:
        """Start it, or start it again."""
        os.makedirs(os.path.dirname(self.log), mode=0o700, exist_ok=True)
        if os.path.exists(self.log) and os.path.getsize(self.log) > _KEEP_LOG_BYTES:
            os.replace(self.log, f"{self.log}.1")
        output = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "fleetwire.cli",
                    *self.words,
                    "--parent-fd",
                    str(parent_fd),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(parent_fd,),
                start_new_session=True,
            )
        finally:
            os.close(output)
        self.ended_at = None

    @property
    def lives(self) -> bool:
        """Whether its process runs."""
        return self.process is not None and self.process.poll() is None

    def last_words(self, lines: int = 8) -> str:
        """Return the end of what it wrote."""
        try:
            with open(self.log, "rb") as file:
                file.seek(max(0, os.path.getsize(self.log) - 8192))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])


class Family:
    """The children, and the signals that concern them. Made in the main thread."""

    def __init__(self) -> None:
        self.children: list[Child] = []
        self.stop_wished = False
        self._parent_fd, self._held = os.pipe()
        self._wake_read, self._wake_write = os.pipe()
        for end in (self._wake_read, self._wake_write):
            os.set_blocking(end, False)
        self._before: list[tuple[signal.Signals, object]] = []

    def __enter__(self) -> Self:
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._before.append((number, signal.signal(number, self._wish_stop)))
        self._before.append((signal.SIGCHLD, signal.signal(signal.SIGCHLD, _nothing)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end(self.children, patience=2.0)
        signal.set_wakeup_fd(-1)
        for number, handler in self._before:
            signal.signal(number, handler)  # type: ignore[arg-type]
        for end in (self._parent_fd, self._held, self._wake_read, self._wake_write):
            os.close(end)

    def start(self, child: Child) -> None:
        """Start a child and watch it from now on."""
        child.start(self._parent_fd)
        self.children.append(child)

    def tend(self, told: Callable[[str], None]) -> None:
        """Start again what has been dead for a second; say what died."""
        now = time.monotonic()
        for child in self.children:
            if child.lives or child.process is None:
                continue
            if child.ended_at is None:
                child.ended_at = now
                told(f"{child.name} ended ({_ending(child.process.returncode)}), starting again.")
            elif now - child.ended_at >= RESTART_S:
                child.start(self._parent_fd)

    def wait(self, seconds: float) -> None:
        """Sleep until a signal comes (a child's end is one) or the time is over."""
        readable, _, _ = select.select([self._wake_read], [], [], seconds)
        if readable:
            os.read(self._wake_read, 4096)

    def wait_until(self, holds: Callable[[], bool], *, patience: float, step: float = 0.02) -> bool:
        """Return whether the predicate came to hold before the patience or the wish to go on
        was over.
        """
        deadline = time.monotonic() + patience
        while not holds():
            if self.stop_wished or time.monotonic() >= deadline:
                return False
            self.wait(step)
        return True

    def end(self, children: Sequence[Child], *, patience: float) -> None:
        """TERM, then KILL for what lives after the patience; returns when none lives."""
        alive = [child.process for child in children if child.process and child.lives]
        for process in alive:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + patience
        while any(process.poll() is None for process in alive) and time.monotonic() < deadline:
            self.wait(0.1)
        for process in alive:
            if process.poll() is None:
                process.kill()
            process.wait()
        self.children = [child for child in self.children if child not in children]

    def _wish_stop(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.stop_wished = True


def _nothing(number: int, frame: FrameType | None) -> None:
    """SIGCHLD is only there to wake `wait`."""
    del number, frame


def _ending(returncode: int | None) -> str:
    if returncode is not None and returncode < 0:
        return f"signal {signal.Signals(-returncode).name}"
    return f"exit {returncode}"
