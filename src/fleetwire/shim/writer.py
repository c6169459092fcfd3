"""The shim's end of the spool: frames into pieces, the rolling hash, the quota's account.

Bytes reach the file within the call that brings them; there is no buffer of our own. A disk that
is full does not raise: what could not be written stays pending until it is written (`retry`) or
given up (`abandon`), and its buffers must stay as they are so long.
"""

import _thread
import contextlib
import errno
import hashlib
import os
import sys
import time
from collections import deque
from collections.abc import Sequence

assert sys.platform != "win32", "shims need POSIX process trees"

from fleetwire.shim.frames import GAP, HEADER_BYTES, MAX_GAP, MAX_PAYLOAD, header
from fleetwire.shim.spool import piece_name

MAX_APPEND = 1024 * 1024  # payload bytes of one append: what a pipe holds at most

# A disk that answers EIO is treated like a full one: the task waits, and its deadline still holds.
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
_LEAST_PIECE = 64 * 1024
_MOST_FRAMES = MAX_APPEND // MAX_PAYLOAD + 2  # two streams may each end in a short one
_EMPTY = memoryview(b"")


if sys.platform == "darwin":
    _sync_data = os.fsync
else:
    _sync_data = os.fdatasync


class SpoolWriter:
    """Appends to the log of one attempt; `directory` is a descriptor of its folder.

    `length` and `digest()` are of what is stored: a gap counts in the length and is left out of
    the SHA-256 (docs/seams.md, section 1).
    """

    def __init__(self, directory: int, *, piece: int, quota: int) -> None:
        self.length = 0  # log bytes stored; what is pending is not
        self.quota = quota
        self.error: str | None = None  # why stored bytes may not survive a power loss
        self._directory = directory
        self._piece = piece
        self._hash = hashlib.sha256()
        self._fd = -1
        self._sizes: deque[tuple[int, int]] = deque()  # closed pieces that are there: name, bytes
        self._closed_bytes = 0
        self._open_bytes = 0
        self._open_name = 0
        # The batch being written: frames not yet accounted for, their bytes, how many are written.
        self._end = 0  # the length once it is written
        self._frames: list[tuple[int, memoryview]] = []  # gap length, payload
        self._rest: list[bytes | memoryview] = []
        self._written = 0
        self._synced = 0
        self._sync_lock = _thread.allocate_lock()
        self._unsynced: list[int] = []  # descriptors of pieces rolled since the last sync
        self._named = False  # whether a piece was created since the last sync

    def digest(self) -> str:
        """SHA-256 of the stored payloads, hexadecimal."""
        return self._hash.hexdigest()

    @property
    def stored_bytes(self) -> int:
        """Bytes of the pieces that are there, which is what the quota counts."""
        return self._closed_bytes + self._open_bytes

    def room(self) -> int:
        """How many payload bytes (up to MAX_APPEND) may come without passing the quota."""
        return self.quota - self.stored_bytes - _MOST_FRAMES * HEADER_BYTES

    def look(self) -> None:
        """See which pieces the agent has deleted (architecture 5.9)."""
        while self._sizes:
            name, size = self._sizes[0]
            try:
                os.stat(piece_name(name), dir_fd=self._directory)
            except FileNotFoundError:
                self._sizes.popleft()
                self._closed_bytes -= size
            else:
                break  # they go from the oldest on

    def roll(self) -> None:
        """Close the piece being written, so that the agent may trim it; the next append opens one.

        Called when the quota is full as well: the newest piece is never trimmed, so a full spool
        of one piece would stay full for ever.
        """
        if self._fd < 0 or self._rest or not self._open_bytes:
            return
        self._sizes.append((self._open_name, self._open_bytes))
        self._closed_bytes += self._open_bytes
        self._unsynced.append(self._fd)
        self._fd = -1
        self._open_bytes = 0
        # An empty successor: the closed piece is no longer the newest one.
        with contextlib.suppress(OSError):  # no space: it will be tried with the next append
            self._open()

    def append(self, parts: Sequence[tuple[int, memoryview]]) -> bool:
        """Store `(stream, payload)` parts in order; False when some of it is pending."""
        now = time.time_ns() // 1000
        for stream, payload in parts:
            for start in range(0, len(payload), MAX_PAYLOAD):
                self._add(stream, payload[start : start + MAX_PAYLOAD], 0, now)
        return self.retry()

    def append_gap(self, length: int) -> bool:
        """Record that `length` bytes were dropped here; False when that is pending."""
        now = time.time_ns() // 1000
        while length:
            part = min(length, MAX_GAP)
            self._add(GAP, _EMPTY, part, now)
            length -= part
        return self.retry()

    def retry(self) -> bool:
        """Write what is pending; True when nothing is left."""
        try:
            while self._rest:
                if self._fd < 0:
                    self._open()
                self._advance(os.writev(self._fd, self._rest[:1000]))  # IOV_MAX is 1024
        except OSError as error:
            if error.errno not in _NO_SPACE:
                raise
            return False
        for gap, payload in self._frames:
            self._account(gap, payload)
        self._frames.clear()
        self._written = 0
        if self._open_bytes >= self._piece_limit():
            self.roll()
        return True

    def abandon(self) -> int:
        """Give up what is pending, except frames written whole; returns the bytes lost."""
        end = lost = 0
        for gap, payload in self._frames:
            size = HEADER_BYTES + len(payload)
            if lost or end + size > self._written:
                lost += gap or len(payload)
            else:
                end += size
                self._account(gap, payload)
        if self._fd >= 0:
            self._open_bytes -= self._written - end
            os.ftruncate(self._fd, self._open_bytes)
        self._frames.clear()
        self._rest.clear()
        self._written = 0
        self._end = self.length
        return lost

    def sync(self) -> None:
        """Make what was appended durable, in a thread of its own: the pump reads on meanwhile.

        Does nothing while the last sync is still under way.
        """
        if self._fd >= 0 and self.dirty and self._sync_lock.acquire(blocking=False):
            self._synced = self.length
            fds, self._unsynced = [*self._unsynced, os.dup(self._fd)], []
            named, self._named = self._named, False
            _thread.start_new_thread(self._sync_and_release, (fds, named))

    @property
    def dirty(self) -> bool:
        """Whether bytes were appended since the last sync began."""
        return self._synced != self.length

    def close(self) -> None:
        """Make everything durable, in this thread, and close: the last record comes after it."""
        fds, self._unsynced = self._unsynced, []
        if self._fd >= 0:
            fds.append(self._fd)
            self._fd = -1
        self._sync_lock.acquire()  # a sync under way ends first
        self._sync_and_release(fds, named=self._named)

    def _sync_and_release(self, fds: list[int], named: bool) -> None:
        try:
            for fd in fds:
                _sync_data(fd)
            if named:
                os.fsync(self._directory)
        except OSError as error:
            self.error = f"the output may be incomplete after a power loss: {error.strerror}"
        finally:
            for fd in fds:
                os.close(fd)
            self._sync_lock.release()

    def _piece_limit(self) -> int:
        # Several pieces to a quota: only whole pieces below the newest one can be trimmed.
        return max(min(self._piece, self.quota // 4), min(self._piece, _LEAST_PIECE))

    def _open(self) -> None:
        self._fd = os.open(piece_name(self.length), _NEW, 0o600, dir_fd=self._directory)
        self._open_name = self.length
        self._named = True

    def _add(self, stream: int, payload: memoryview, gap: int, now: int) -> None:
        length = gap or len(payload)
        self._rest.append(header(stream, length, self._end, now, payload))
        self._end += length
        if payload:
            self._rest.append(payload)
        self._frames.append((gap, payload))

    def _advance(self, count: int) -> None:
        self._written += count
        self._open_bytes += count
        done = 0
        while done < len(self._rest) and count >= len(self._rest[done]):
            count -= len(self._rest[done])
            done += 1
        del self._rest[:done]
        if count:
            self._rest[0] = memoryview(self._rest[0])[count:]

    def _account(self, gap: int, payload: memoryview) -> None:
        self.length += gap or len(payload)
        self._hash.update(payload)
