"""The spool of an attempt, as the agent reads it: pieces made of frames, and small records.

A log is one byte sequence (architecture 5.1), kept in pieces `output.{offset:020d}` named by the
log offset of their first byte. Exactly one process, the shim, appends; any number may read. The
only one who deletes is the agent, through `SpoolReader.trim`, and never the newest piece.

What a reader relies on: bytes below `length()` never change; a frame that cannot be read (torn by
a crash, or still being written) ends the readable log, whatever stands behind it.
"""

import os
import sys
from itertools import pairwise
from typing import NamedTuple

from fleetwire.shim.frames import HEADER_BYTES, MAX_PAYLOAD, Frame, parse
from fleetwire.shim.locks import is_locked, take_lock
from fleetwire.shim.records import read_bytes, read_record, write_record

__all__ = [
    "Frame",
    "SpoolReader",
    "SpoolTrimmed",
    "is_locked",
    "piece_name",
    "pieces",
    "read_bytes",
    "read_record",
    "take_lock",
    "write_record",
]

_PREFIX = "output."
_DIGITS = 20
_STRIDE = 1024 * 1024
_LARGEST_FRAME = HEADER_BYTES + MAX_PAYLOAD


class SpoolTrimmed(LookupError):
    """The bytes asked for were deleted because the server has them; the spool begins later."""

    def __init__(self, offset: int, first: int) -> None:
        super().__init__(
            f"the spool begins at log offset {first}, so {offset} cannot be read:"
            f" what lies below was trimmed; read from {first} on"
        )
        self.first = first


class _Place(NamedTuple):
    """A frame border: the piece, the position in its file, the log offset there."""

    piece: int
    position: int
    offset: int


def piece_name(offset: int) -> str:
    """The file name of the piece that begins at log offset `offset`."""
    return f"{_PREFIX}{offset:0{_DIGITS}d}"


def pieces(folder: str | int) -> list[int]:
    """The offsets of the pieces that are there, in order; `folder` is a path or a descriptor."""
    return sorted(
        int(name[len(_PREFIX) :])
        for name in os.listdir(folder)
        if name.startswith(_PREFIX) and name[len(_PREFIX) :].isdecimal()
    )


class SpoolReader:
    """Reads the log of one attempt, also while it is written.

    Cheap to make. Keeps a descriptor of the piece it reads and remembers where it stands, so
    reading on costs one `pread`. Not for several threads at once.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._here: _Place | None = None  # where the last read ended
        self._tail: _Place | None = None  # everything before it is verified
        self._fd = -1
        self._fd_piece = -1

    def read(self, offset: int, limit: int) -> list[Frame]:
        """Whole frames from `offset` on, the first one cut to begin there.

        About `limit` payload bytes at most, but one frame at least if there is one; [] means that
        nothing is there yet. Raises SpoolTrimmed below the oldest piece that is left.
        """
        place = self._seek(offset)
        if place is None:
            return []
        frames: list[Frame] = []
        while not frames:
            found, place = self._step(place, max(limit, 1))
            if not found:
                break
            frames = [frame for frame in found if frame.offset + frame.length > offset]
        self._here = place
        if not frames:
            self._piece_of(offset)  # all the same it may have been trimmed
        if frames and frames[0].offset < offset:
            frames[0] = frames[0].cut(offset)
        return frames

    def length(self) -> int:
        """The log offset up to which the log is readable now."""
        tail = self._known_tail()
        if tail is None:
            return 0
        while True:
            frames, tail = self._step(tail, _STRIDE)
            if not frames:
                return tail.offset

    def trim(self, durable: int) -> int:
        """Delete the pieces that lie wholly below `durable`; returns the bytes freed.

        The newest piece always stays: the shim writes there.
        """
        freed = 0
        present = pieces(self._folder)
        for piece, following in pairwise(present):
            if following > durable:
                break
            path = os.path.join(self._folder, piece_name(piece))
            size = os.stat(path).st_size
            os.unlink(path)
            freed += size
            if piece == self._fd_piece:
                self.close()
        return freed

    def close(self) -> None:
        """Give back the descriptor; the reader may be used again."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = self._fd_piece = -1

    def _known_tail(self) -> _Place | None:
        """Where to go on verifying: the tail, or the oldest piece; None when there is none."""
        tail = self._tail
        if tail is not None:
            if self._open(tail.piece):
                return tail
            if self._open(tail.offset):  # its piece was trimmed, the next one begins here
                return _Place(tail.offset, 0, tail.offset)
            self._tail = None
        present = pieces(self._folder)
        return _Place(present[0], 0, present[0]) if present else None

    def _seek(self, offset: int) -> _Place | None:
        """A frame border at or before `offset`, as near as is cheap; None if nothing is there."""
        here = self._here
        if here is not None and here.offset == offset and self._open(here.piece):
            return here
        piece = self._piece_of(offset)
        if piece is None or offset > self.length():
            return None  # length() walks: a damaged frame must hide all that is behind it
        return _Place(piece, 0, piece)

    def _piece_of(self, offset: int) -> int | None:
        """The piece that holds the offset; None when there is no piece at all yet."""
        present = pieces(self._folder)
        if present and offset < present[0]:
            raise SpoolTrimmed(offset, present[0])
        return max((piece for piece in present if piece <= offset), default=None)

    def _step(self, place: _Place, limit: int) -> tuple[list[Frame], _Place]:
        """Frames from `place` on, all of one piece, and the place behind them."""
        while True:
            frames, behind = self._parse_from(place, limit)
            if frames:
                break
            if behind.offset == behind.piece or not self._open(behind.offset):
                return [], behind
            place = _Place(behind.offset, 0, behind.offset)
        tail = self._tail
        if tail is None or place.offset <= tail.offset <= behind.offset:
            self._tail = behind
        return frames, behind

    def _pread(self, count: int, position: int) -> memoryview:
        if sys.platform == "win32":
            os.lseek(self._fd, position, os.SEEK_SET)
            return memoryview(os.read(self._fd, count))
        return memoryview(os.pread(self._fd, count, position))

    def _parse_from(self, place: _Place, limit: int) -> tuple[list[Frame], _Place]:
        if not self._open(place.piece):
            return [], place
        frames: list[Frame] = []
        offset = place.offset
        data = self._pread(limit + HEADER_BYTES, place.position)
        position = 0
        while True:
            found = parse(data, position, offset)
            if isinstance(found, int) and not frames and len(data) < found <= _LARGEST_FRAME:
                # The first frame is larger than the limit: it is given all the same.
                longer = self._pread(found, place.position)
                if len(longer) > len(data):
                    data = longer
                    continue
            if not isinstance(found, tuple):
                return frames, _Place(place.piece, place.position + position, offset)
            frame, position = found
            frames.append(frame)
            offset += frame.length

    def _open(self, piece: int) -> bool:
        if piece == self._fd_piece:
            return True
        path = os.path.join(self._folder, piece_name(piece))
        try:
            fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return False
        self.close()
        self._fd, self._fd_piece = fd, piece
        return True
