"""The smallest event loop that serves a shim or the spawner: poll, timers by the caller.

asyncio would add 10 MiB to every shim and a millisecond to every start.
"""

import os
import select
import signal
import sys
from collections.abc import Callable
from typing import Self

assert sys.platform != "win32", "shims need POSIX process trees"


class Loop:
    """Calls what is watched when it is ready. A child's death (SIGCHLD) wakes it as well."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._calls: dict[int, Callable[[], None]] = {}
        reader, self._wake = os.pipe()
        self._wake_reader = reader
        os.set_blocking(reader, False)
        os.set_blocking(self._wake, False)
        self.watch(reader, self._swallow)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back the loop's own descriptors."""
        signal.set_wakeup_fd(-1)
        self._calls.clear()
        os.close(self._wake_reader)
        os.close(self._wake)

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        """Call `ready` whenever `fd` can be read or its other end has gone."""
        self._calls[fd] = ready
        self._poll.register(fd, select.POLLIN)

    def watch_writable(self, fd: int, ready: Callable[[], None]) -> None:
        """Call `ready` whenever `fd` can be written or its other end has gone."""
        self._calls[fd] = ready
        self._poll.register(fd, select.POLLOUT)

    def forget(self, fd: int) -> None:
        """Look at `fd` no more; before it is closed."""
        if self._calls.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def turn(self, timeout_s: float | None) -> None:
        """Wait until something is ready, a child died, or the time is over; call what is ready."""
        wait = None if timeout_s is None else max(0, int(timeout_s * 1000 + 0.999))
        for fd, _ in self._poll.poll(wait):
            call = self._calls.get(fd)
            if call is not None:  # else: forgotten by a call of this same turn
                call()

    def _swallow(self) -> None:
        os.read(self._wake_reader, 4096)


def wake_on_child_death() -> None:
    """Have SIGCHLD wake the loop of this process; a fork inherits it."""
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
