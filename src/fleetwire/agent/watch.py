"""Noticing that a shim has written something, without asking it.

On Linux inotify tells which folder and which file; elsewhere (and where the user's watches are
used up) the folders are looked at once a second. A watch is a nudge: it may be late or doubled,
and the roster's sweep finds what it missed (architecture 5.14).
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import struct
import sys
from collections.abc import Callable
from typing import Final, Protocol

_log = logging.getLogger(__name__)

# (attempt, file name): something was written there. An empty name: look at all of it.
Written = Callable[[str, str], None]

_EVENT: Final = struct.Struct("iIII")
_READ: Final = 64 * 1024
_MODIFY: Final = 0x2
_MOVED_TO: Final = 0x80
_ONLYDIR: Final = 0x01000000
_OVERFLOW: Final = 0x4000
_IGNORED: Final = 0x8000
POLL_S: Final = 1.0


class Watch(Protocol):
    """Looks at folders; tells `Written` what happened there."""

    def add(self, attempt: str, path: str) -> None:
        """Look at this folder from now on."""

    def remove(self, attempt: str) -> None:
        """Look at it no more."""

    def close(self) -> None:
        """Give everything back."""


def open_watch(written: Written) -> Watch:
    """Return the best watch this machine has."""
    if sys.platform == "linux":
        try:
            return Inotify(written)
        except OSError as error:
            _log.warning("inotify is not to be had (%s); looking once a second instead", error)
    return Poll(written)


class Inotify:
    """Linux: the kernel tells. One descriptor for all folders, by ctypes: three calls do not
    need a library.
    """

    def __init__(self, written: Written) -> None:
        self._written = written
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise self._error("inotify_init1")
        self._attempts: dict[int, str] = {}
        self._watches: dict[str, int] = {}
        self._poll: Poll | None = None
        asyncio.get_running_loop().add_reader(self._fd, self._ready)

    def add(self, attempt: str, path: str) -> None:
        """Look at this folder from now on; where the user has no watch left, by polling."""
        if attempt in self._watches:
            return
        # Not that files are created: a log's first bytes follow, and records are renamed.
        mask = _MODIFY | _MOVED_TO | _ONLYDIR
        watch: int = self._libc.inotify_add_watch(self._fd, os.fsencode(path), mask)
        if watch >= 0:
            self._attempts[watch] = attempt
            self._watches[attempt] = watch
            return
        error = self._error("inotify_add_watch")
        if self._poll is None:
            _log.warning(
                "no inotify watch is left (%s): looking at new folders once a second; "
                "raise fs.inotify.max_user_watches",
                error,
            )
            self._poll = Poll(self._written)
        self._poll.add(attempt, path)

    def remove(self, attempt: str) -> None:
        """Look at it no more."""
        watch = self._watches.pop(attempt, None)
        if watch is not None:
            # The folder may be deleted already, and its watch with it: then EINVAL is right.
            self._attempts.pop(watch, None)
            self._libc.inotify_rm_watch(self._fd, watch)
        elif self._poll is not None:
            self._poll.remove(attempt)

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
        if self._poll is not None:
            self._poll.close()

    def _ready(self) -> None:
        try:
            data = os.read(self._fd, _READ)
        except BlockingIOError:
            return
        position = 0
        last: tuple[int, bytes] | None = None
        while position < len(data):
            watch, mask, _, length = _EVENT.unpack_from(data, position)
            position += _EVENT.size
            name = data[position : position + length].rstrip(b"\0")
            position += length
            if mask & _OVERFLOW:
                for attempt in list(self._watches):
                    self._written(attempt, "")
            elif not mask & _IGNORED and (watch, name) != last:
                last = (watch, name)
                attempt_of = self._attempts.get(watch)
                if attempt_of is not None:
                    self._written(attempt_of, os.fsdecode(name))

    def _error(self, what: str) -> OSError:
        number = ctypes.get_errno()
        return OSError(number, f"{what}: {os.strerror(number)}")


class Poll:
    """Anywhere: every folder counts as written once a second, while there is one to look at."""

    def __init__(self, written: Written) -> None:
        self._written = written
        self._attempts: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, attempt: str, path: str) -> None:  # noqa: ARG002 (the interface's)
        """Look at this folder from now on."""
        self._attempts.add(attempt)
        self._arm()

    def remove(self, attempt: str) -> None:
        """Look at it no more."""
        self._attempts.discard(attempt)

    def close(self) -> None:
        """Stop looking."""
        self._attempts.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        if self._timer is None and self._attempts:
            self._timer = asyncio.get_running_loop().call_later(POLL_S, self._look)

    def _look(self) -> None:
        self._timer = None
        for attempt in sorted(self._attempts):
            self._written(attempt, "")
        self._arm()
