"""The node's reserve (core.reserve): a file of allocated blocks in the state directory, for what
must be durable on a full disk: a refusal, the tombstone of a stop, a drain (promise P16). The
result of what runs has room of its own (`shim.records`).

As `server.durable.reserve`, with one difference: nobody here can refuse what grows, because every
shim waits to write its output as soon as anything is free. So nothing is given away ahead of time;
a step of it is given for one write, and what that did not need is taken again at once.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Final

from fleetwire.core import limits
from fleetwire.core.reserve import bounds

# Not `reserve`: by that name the spawner, too, would find room for its own record in this folder,
# and rename it (shim.records).
NAME: Final = "disk-reserve"
_STEP: Final = 64 * limits.KIB  # a folder, a file and what a file system needs to know of them


class Reserve:
    """One per state directory, for as long as the agent holds its lock."""

    def __init__(self, state: str) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._fd = os.open(os.path.join(state, NAME), flags, 0o600)
        self.take()

    def take(self) -> None:
        """Hold back as much as should be, or as there is. Takes some microseconds."""
        facts = os.fstatvfs(self._fd)
        held = os.fstat(self._fd).st_size
        known = bounds(facts.f_blocks * facts.f_frsize, reserve=limits.NODE_RESERVE_BYTES)
        wanted = min(known.reserve, held + facts.f_bavail * facts.f_frsize)
        if wanted > held:
            try:
                self._allocate(held, wanted - held)
            except OSError:
                os.ftruncate(self._fd, held)  # somebody was faster: the next one tries again
        elif wanted < held:
            os.ftruncate(self._fd, wanted)

    @contextlib.contextmanager
    def given(self) -> Iterator[None]:
        """Give away a step of it for what is written inside, after that has failed once."""
        held = os.fstat(self._fd).st_size
        os.ftruncate(self._fd, max(0, held - _STEP))
        try:
            yield
        finally:
            self.take()

    def close(self) -> None:
        """Let go of the file; what it holds stays held for the next agent."""
        os.close(self._fd)

    def _allocate(self, offset: int, count: int) -> None:
        if sys.platform == "linux":
            os.posix_fallocate(self._fd, offset, count)
        else:
            os.lseek(self._fd, offset, os.SEEK_SET)
            os.write(self._fd, bytes(count))
