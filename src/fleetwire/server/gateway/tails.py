"""The logs of one link: where each stands, and the hash of what went through (5.7)."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Final

import zstandard

from fleetwire.core import chunks
from fleetwire.protocol.codec import BadFrame, LogFrame
from fleetwire.server.domain.attempts import Stored

INLINE_BYTES: Final = 64 * 1024
"""Chunks up to this size (uncompressed) are hashed in the event loop: a thread costs more."""


class LogTail:
    """One attempt's log on one link.

    `received` and `done` count frames, so that a report can wait for the frames before it.
    `expecting` is set after a `resend`: frames past that offset are not wanted any more. `epoch`
    is the newest under which the node was told of the attempt.
    """

    __slots__ = (
        "_hash",
        "_lock",
        "_rolled",
        "done",
        "durable",
        "epoch",
        "expecting",
        "received",
        "segment",
        "stalled",
    )

    def __init__(self, segment: str, durable: int, epoch: int) -> None:
        self.segment = segment
        self.epoch = epoch
        self.durable = durable
        self.received = 0
        self.done = 0
        self.expecting: int | None = None
        self.stalled = False
        self._hash = None if durable else hashlib.sha256()
        self._rolled = 0
        self._lock: asyncio.Lock | None = None

    def restart(self, length: int) -> None:
        """The node is told to send from `length`."""
        self.durable = length
        self.expecting = length
        self.stalled = False
        if length != self._rolled:
            self._hash = None if length else hashlib.sha256()
            self._rolled = 0

    def stored(self) -> Stored:
        """Return the durable length, and its hash where it is known."""
        if self._hash is not None and self._rolled == self.durable:
            return Stored(self.durable, self._hash.hexdigest())
        return Stored(self.durable, None)

    async def roll(self, frame: LogFrame, skipped: int) -> None:
        """Hash a frame whose bytes are durable. Frames are hashed in the order of the calls.

        A frame that does not begin where the last one ended ends the hashing, and so does one of
        which `skipped` bytes were stored already, which may be other ones: the sealing loop reads
        the store then.
        """
        if skipped:
            self._hash = None
        if self._hash is None:
            return
        if frame.raw_length <= INLINE_BYTES and self._lock is None:
            self._roll(frame)
            return
        if self._lock is None:
            self._lock = asyncio.Lock()
        async with self._lock:
            await asyncio.to_thread(self._roll, frame)

    def _roll(self, frame: LogFrame) -> None:
        if self._hash is None:
            return
        if frame.offset != self._rolled:
            self._hash = None
            return
        try:
            raw = zstandard.ZstdDecompressor().decompress(
                frame.body, max_output_size=frame.raw_length
            )
        except zstandard.ZstdError as error:
            raise BadFrame(f"A log chunk cannot be decompressed: {error}.") from error
        pieces, payload = chunks.decode(raw)
        self._hash.update(payload)
        self._rolled += sum(piece.length for piece in pieces)
