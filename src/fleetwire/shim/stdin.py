"""The task's standard input, when somebody may type into it."""

import os
import sys

assert sys.platform != "win32", "shims need POSIX process trees"

from fleetwire.shim.loop import Loop
from fleetwire.shim.pty import END_OF_INPUT

MOST_PENDING = 1024 * 1024


class Input:
    """Passes bytes on as the task takes them; holds back 1 MiB at most.

    `fd` is non-blocking, or None when the task's input is not ours to give. It is closed
    by us.
    """

    def __init__(self, loop: Loop, fd: int | None, *, terminal: bool) -> None:
        self._loop = loop
        self._fd = fd
        self._terminal = terminal
        self._pending = bytearray()
        self._ending = False

    def give(self, data: bytes) -> None:
        """Pass `data` on. Raises ValueError when the task takes none, or does not keep up."""
        if self._fd is None or self._ending:
            raise ValueError("the task takes no input")
        if len(self._pending) + len(data) > MOST_PENDING:
            raise ValueError("the task does not read its input; try again later")
        self._pending += data
        self._push()

    def end(self) -> None:
        """Close the input behind what was given; a terminal gets its end-of-input character."""
        if self._fd is None:
            raise ValueError("the task takes no input")
        if self._terminal:
            self.give(END_OF_INPUT)
            return
        self._ending = True
        self._push()

    def close(self) -> None:
        """Close it whatever is pending: the task has ended."""
        if self._fd is not None:
            self._loop.forget(self._fd)
            os.close(self._fd)
            self._fd = None

    def _push(self) -> None:
        fd = self._fd
        if fd is None:
            return
        try:
            while self._pending:
                del self._pending[: os.write(fd, self._pending)]
        except BlockingIOError:
            self._loop.watch_writable(fd, self._push)
            return
        except OSError:  # EPIPE or EIO: nobody will read it any more
            self._pending.clear()
            self._ending = True
        self._loop.forget(fd)
        if self._ending:
            self.close()
