"""From the task's pipes (or terminal) to the spool: big reads, one write a turn, the quota.

Bytes read are in the piece file before the turn ends. A turn reads everything that is there, so
a task that writes line by line costs a turn for what has gathered, not one for each line.
"""

import errno
import fcntl
import math
import os
import sys
import time
from collections.abc import Callable

assert sys.platform != "win32", "shims need POSIX process trees"

from fleetwire.shim.loop import Loop
from fleetwire.shim.masking import Masker, Patterns
from fleetwire.shim.writer import MAX_APPEND, SpoolWriter

LOOK_AGAIN_S = 0.5  # how often a full quota or a full disk is looked at again
SYNC_EVERY_S = 0.5  # promise P5: a power loss takes the last second at most
_EMPTY = memoryview(b"")
_PIPE_AT_FIRST = 64 * 1024  # what the kernel gives
_PACE_S = 0.001
_SILENCE_S = 0.05  # after it the little goes out that may be the beginning of a secret: a prompt


class Pump:
    """Moves output. `policy` is the order's `quota_policy`.

    `on_full` is called whenever the quota is found full under the policy `kill`. What `secrets`
    names is masked before anything is stored.
    """

    def __init__(
        self,
        loop: Loop,
        writer: SpoolWriter,
        policy: str,
        on_full: Callable[[], None],
        secrets: Patterns | None = None,
    ) -> None:
        self.blocked = False  # reading has stopped: quota or disk full
        self.lost = 0  # bytes read that a full disk did not take in the end
        self._loop = loop
        self._writer = writer
        self._policy = policy
        self._on_full = on_full
        self._streams: dict[int, int] = {}  # descriptor: stream number
        self._secrets = secrets
        self._maskers: dict[int, Masker] = {}  # by stream; empty where there is nothing to mask
        self._release_at = math.inf
        self._ready: list[int] = []
        self._buffer = memoryview(bytearray(_PIPE_AT_FIRST))
        self._little = _PIPE_AT_FIRST // 4
        self._dropped = 0  # bytes read and thrown away that no gap frame tells of yet
        self._last_turn = 0.0
        self._look_at = 0.0
        self._dirty_since: float | None = None

    def add(self, fd: int, stream: int) -> None:
        """Read `fd`, which must be non-blocking, as this stream of the log."""
        self._streams[fd] = stream
        if self._secrets:
            self._maskers[stream] = Masker(self._secrets)
        self._watch(fd)

    def turn(self, now: float) -> None:
        """After each turn of the loop: store what has become ready, and keep the timers."""
        if self._ready:
            ready, self._ready = self._ready, []
            self._move([fd for fd in ready if fd in self._streams], now)
        if self.blocked and now >= self._look_at:
            self.look_again(now)
        if now >= self._release_at and not self.blocked:
            self._release(now)
        if self._dirty_since is not None and now - self._dirty_since >= SYNC_EVERY_S:
            self._writer.sync()
            self._dirty_since = now if self._writer.dirty else None

    def wake_at(self) -> float:
        """When `turn` has something to do even if nothing becomes ready (monotonic seconds)."""
        at = self._look_at if self.blocked else self._release_at
        return at if self._dirty_since is None else min(at, self._dirty_since + SYNC_EVERY_S)

    def look_again(self, now: float) -> None:
        """See whether pieces were trimmed, the quota was raised or the disk has space again."""
        self._look_at = now + LOOK_AGAIN_S
        if self.blocked and self._writer.retry() and (self._room() > 0 or self._throws_away()):
            self.blocked = False
            for fd in self._streams:
                self._watch(fd)

    def drain(self, *, force: bool) -> bool:
        """Once nothing of the task lives: store what is left in its pipes, and close them.

        This may pass the quota by what the pipes hold (1 MiB each at most): a result is not held
        back because the server is away. False while the disk is full: call again later, or with
        `force`, which counts as `lost` what the disk does not take.
        """
        for fd in self._streams:
            self._loop.forget(fd)
        if not self._settle(force=force):
            return False
        for fd, stream in list(self._streams.items()):
            while count := self._read(fd, self._buffer):
                self._store_last(stream, self._masked(stream, self._buffer[:count]))
                if not self._settle(force=force):
                    return False
            self._end(fd)
            self._store_last(stream, self._masked(stream, None))
            if not self._settle(force=force):
                return False
        self._append([])
        return self._settle(force=force)

    def _store_last(self, stream: int, data: memoryview) -> None:
        if self._throws_away() and self._room() <= 0:
            self._dropped += len(data)
        else:
            self._append([(stream, data)])

    def _watch(self, fd: int) -> None:
        self._loop.watch(fd, lambda: self._ready.append(fd))

    def _move(self, ready: list[int], now: float) -> None:
        room = self._room()
        keep = room > 0
        if not keep and not self._throws_away():
            self._block(now)
            return
        share = min(len(self._buffer), room if keep else MAX_APPEND) // max(len(ready), 1)
        parts: list[tuple[int, memoryview]] = []
        total = 0
        for index, fd in enumerate(ready):
            part = self._buffer[index * share : (index + 1) * share]
            count = self._read(fd, part)
            if count:
                total += count
                parts.append((self._streams[fd], self._masked(self._streams[fd], part[:count])))
            elif count == 0:
                stream = self._streams[fd]
                self._end(fd)
                parts.append((stream, self._masked(stream, None)))
        self._store([part for part in parts if part[1]], now, keep=keep)
        if self._maskers:
            silent = any(each.releasable for each in self._maskers.values())
            self._release_at = now + _SILENCE_S if silent else math.inf
        if total >= share and len(self._buffer) < MAX_APPEND:
            self._enlarge()
        elif 0 < total < self._little:
            self._pace(now)
        self._last_turn = now

    def _store(self, parts: list[tuple[int, memoryview]], now: float, *, keep: bool) -> None:
        if not parts:
            return
        if not keep:
            self._dropped += sum(len(data) for _, data in parts)
            return
        self._append(parts)
        if not self._settle(force=False):
            self._block(now)
        if self._dirty_since is None:
            self._dirty_since = now

    def _masked(self, stream: int, data: memoryview | None) -> memoryview:
        """What may be stored now that `data` came; None: the stream has ended."""
        masker = self._maskers.get(stream)
        if masker is None:
            return _EMPTY if data is None else data
        return memoryview(masker.finish() if data is None else masker.feed(data))

    def _release(self, now: float) -> None:
        """The task is silent: store what was held back, where that is little."""
        keep = self._room() > 0
        if not keep and not self._throws_away():
            self._block(now)
            return
        self._release_at = math.inf
        parts = [(stream, memoryview(each.release())) for stream, each in self._maskers.items()]
        self._store([part for part in parts if part[1]], now, keep=keep)

    def _append(self, parts: list[tuple[int, memoryview]]) -> None:
        """Hand to the writer, after the gap that comes before it."""
        if self._dropped:
            self._writer.append_gap(self._dropped)
            self._dropped = 0
        self._writer.append(parts)

    def _settle(self, *, force: bool) -> bool:
        """Whether the writer holds nothing back any more."""
        if self._writer.retry():
            return True
        if force:
            self.lost += self._writer.abandon()
        return force

    def _room(self) -> int:
        """How much may be stored now; looks at the folder only when the account says: nothing."""
        room = self._writer.room()
        if room <= 0:
            self._writer.look()
            room = self._writer.room()
        if room <= 0:
            self._writer.roll()
            if self._policy == "kill":
                self._on_full()
        return room

    def _throws_away(self) -> bool:
        # `kill` too: while it is being ended, the task must be able to write in order to end well.
        return self._policy != "block"

    def _block(self, now: float) -> None:
        self.blocked = True
        self._look_at = now + LOOK_AGAIN_S
        for fd in self._streams:
            self._loop.forget(fd)

    def _read(self, fd: int, into: memoryview) -> int | None:
        """How many bytes came; 0 at the end; None when there are none now."""
        try:
            return os.readv(fd, [into])
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return 0  # what a terminal says once nobody holds its other end

    def _end(self, fd: int) -> None:
        self._loop.forget(fd)
        del self._streams[fd]
        os.close(fd)

    def _enlarge(self) -> None:
        """The task writes much: larger pipes and a larger buffer. Idle shims stay small."""
        self._buffer = memoryview(bytearray(MAX_APPEND))
        size = MAX_APPEND
        if sys.platform == "linux":
            for fd in self._streams:
                try:
                    size = fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, MAX_APPEND)
                except OSError:  # a terminal; or the user's share of pipe memory is used up
                    size = _PIPE_AT_FIRST
        self._little = size // 4

    def _pace(self, now: float) -> None:
        """Let small writes gather for a moment when they come one upon the other.

        A task that writes line by line, fast, would otherwise cost a turn and a frame for each.
        The first bytes after a silence never wait; the others a millisecond.
        """
        since = now - self._last_turn
        if since < _PACE_S:
            time.sleep(_PACE_S - since)
