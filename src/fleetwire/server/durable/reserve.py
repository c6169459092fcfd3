"""The reserve of the server's disk (core.reserve): a file of allocated blocks that is given away
when the disk is full, so that stops, reports and logins can still be committed (promise P15).
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fleetwire.core.limits import MIB
from fleetwire.core.reserve import Room, bounds, decide
from fleetwire.server.durable.errors import StorageFull

NAME: Final = "reserve"
LOOK_S: Final = 0.25
"""What grows asks how much is free at most so often."""


class Reserve:
    """One per data folder. May be used from any thread. `monotonic` is seconds."""

    def __init__(self, folder: Path, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._monotonic = monotonic
        self._lock = threading.Lock()
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._fd = os.open(folder / NAME, flags, 0o600)
        self._room = Room(os.fstat(self._fd).st_size, grows=True)
        self._free = 0
        self._looked = 0.0
        self.look()

    def look(self) -> Room:
        """See how much is free, and give away or take again what that asks for. Blocks for as
        long as the disk takes. After a failed write this has made room, if there was any.
        """
        with self._lock:
            facts = os.fstatvfs(self._fd)
            held = os.fstat(self._fd).st_size
            free = facts.f_bavail * facts.f_frsize
            known = bounds(facts.f_blocks * facts.f_frsize)
            wanted = decide(known, free=free, held=held, grows=self._room.grows)
            got = self._resize(held, wanted.held)
            self._free = free + held - got
            self._room = Room(got, wanted.grows and got == wanted.held)
            self._looked = self._monotonic()
            return self._room

    def check(self) -> None:
        """Raise StorageFull where nothing may grow now."""
        if self._monotonic() - self._looked >= LOOK_S:
            self.look()
        if not self._room.grows:
            raise StorageFull(
                f"The server's disk is almost full: {self.sentence()}.",
                hint=f"Free some space at {self._folder}; then it goes on by itself.",
            )

    def has_room(self) -> bool:
        """Say whether anything may grow, as of the last look."""
        return self._room.grows

    def is_beside(self, path: Path) -> bool:
        """Say whether `path` is on the same disk."""
        return path.stat().st_dev == os.fstat(self._fd).st_dev

    def sentence(self) -> str:
        """Say for people how much is free, and what that means, as of the last look."""
        facts = os.fstatvfs(self._fd)
        known = bounds(facts.f_blocks * facts.f_frsize)
        text = f"{self._free / MIB:.1f} MiB are free"
        if self._room.grows:
            return text
        text += f", and new runs, enrolments and logs need {known.floor * 1.25 / MIB:.1f} MiB"
        if self._room.held < known.reserve:
            text += (
                f"; stops and reports use the reserve, of which {self._room.held / MIB:.1f}"
                f" of {known.reserve / MIB:.1f} MiB are left"
            )
        return text

    def close(self) -> None:
        """Let go of the file; what it holds stays held for the next start."""
        os.close(self._fd)

    def _resize(self, held: int, wanted: int) -> int:
        """Make the file so long; return how long it is then."""
        if wanted < held:
            os.ftruncate(self._fd, wanted)
        elif wanted > held:
            try:
                self._allocate(held, wanted - held)
            except OSError:
                # Somebody was faster: what was allocated of it is given back.
                os.ftruncate(self._fd, held)
                return held
        return wanted

    def _allocate(self, offset: int, count: int) -> None:
        if sys.platform == "linux":
            os.posix_fallocate(self._fd, offset, count)
        else:
            os.pwrite(self._fd, bytes(count), offset)
