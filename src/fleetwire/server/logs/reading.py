"""Reading algorithms over a `Backend`: walking, lines, tail, search, digest.

Each long one is a generator that yields now and then, so that its caller can run it slice by
slice and a 1 GB log never holds a reader thread for long. None ever holds more than a few
chunks and its bounded answer.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Generator, Iterator
from typing import NamedTuple, TypeVar

from fleetwire.core.chunks import GAP, Piece
from fleetwire.server.logs import chunks
from fleetwire.server.logs.backend import Address, Backend, Extent, Row
from fleetwire.server.logs.base import MAX_RESULT, MAX_TEXT, Chunk, LogLine, LogLines

SLICE = 4 * 1024 * 1024
"""Log bytes between two yields."""

SCAN = 256 * 1024 * 1024
"""Log bytes after which a search or a filtered read gives back what it has, if it got on."""

_BATCH_BYTES = 1024 * 1024
_MOST_ROWS = 512
_LINE_COST = 100  # bytes that a line costs beside its text, about

T = TypeVar("T")
Sliced = Generator[None, None, T]
"""A long read: run it to its end, step by step; its value is the answer."""


def walk(backend: Backend, address: Address, offset: int) -> Iterator[tuple[Row, chunks.Body]]:
    """Yield the chunks that end after `offset`, in order, the first one whole."""
    count = 2
    while rows := backend.rows(address, offset, count):
        for row in rows:
            yield row, chunks.decode(row.body)
        offset = rows[-1].offset + rows[-1].length
        # About one megabyte a round trip: many small chunks together, large ones by twos.
        stored = sum(len(row.body) for row in rows)
        count = max(2, min(_MOST_ROWS, _BATCH_BYTES * len(rows) // stored, count * 8))


def read(backend: Backend, address: Address, offset: int, limit: int) -> list[Chunk]:
    """Return the log from `offset` on, at most `limit` and `MAX_RESULT` bytes."""
    found: list[Chunk] = []
    stop = offset + min(limit, MAX_RESULT)
    for row, whole in walk(backend, address, offset):
        start = max(offset - row.offset, 0)
        body = whole
        if start or row.offset + row.length > stop:
            body = chunks.cut(whole, start, stop - row.offset)
        if not body.pieces:
            break
        found.append(Chunk(address.attempt, row.offset + start, body.data, body.pieces))
        if row.offset + row.length >= stop:
            break
    return found


def digest(backend: Backend, address: Address) -> Sliced[tuple[int, str]]:
    """Hash the whole log; return its length and SHA-256."""
    total = hashlib.sha256()
    length = since = 0
    for row, body in walk(backend, address, 0):
        total.update(body.data)
        length = row.offset + row.length
        since += row.length
        if since >= SLICE:
            since = 0
            yield
    return length, total.hexdigest()


def locate(backend: Backend, address: Address, line: int) -> int | None:
    """Return the offset at which `line` begins; None where the newline before it is not stored."""
    if line == 0:
        return 0
    row = backend.row_before_line(address, line)
    if row is None or row.line + row.lines < line:
        return None
    body = chunks.decode(row.body)
    at = -1
    for _ in range(line - row.line):
        at = body.data.index(b"\n", at + 1)
    return row.offset + log_position(body.pieces, at) + 1


def log_position(pieces: list[Piece], at: int) -> int:
    """Return the log byte, relative to the chunk, of payload byte `at`."""
    position = 0
    for piece in pieces:
        if piece.stream != GAP:
            if at < piece.length:
                return position + at
            at -= piece.length
        position += piece.length
    raise AssertionError("a position is inside its own payload")


class _Collector:
    """Cuts chunks into lines; memory is the line in hand, at most `MAX_TEXT` of it."""

    def __init__(self, line: int, stream: int | None) -> None:
        self.line = line
        self._stream = stream
        self._begin()

    def _begin(self) -> None:
        self._text = bytearray()
        self._first: tuple[int, int, int] | None = None  # offset, stream, time of the first byte
        self._gap = 0
        self.is_cut = False
        self.is_touched = False

    def feed(self, row: Row, body: chunks.Body, offset: int) -> Iterator[LogLine]:
        """Yield the lines that end in the chunk, from log byte `offset` on."""
        at = row.offset
        data_at = 0
        for piece in body.pieces:
            skip = min(max(offset - at, 0), piece.length)
            if piece.stream == GAP:
                if skip < piece.length:
                    self._take_gap(at + skip, piece._replace(length=piece.length - skip))
            else:
                data_stop = data_at + piece.length
                shift = at - data_at  # from a payload position to a log offset
                position = data_at + skip
                while position < data_stop:
                    newline = body.data.find(b"\n", position, data_stop)
                    stop = data_stop if newline < 0 else newline
                    self._take(body.data, position, stop, shift, piece, newline >= 0)
                    position = stop
                    if newline >= 0:
                        if line := self.finish():
                            yield line
                        position += 1
                data_at = data_stop
            at += piece.length

    def _take_gap(self, offset: int, piece: Piece) -> None:
        self.is_touched = True
        self._gap += piece.length
        if self._first is None and self._stream is None:
            self._first = (offset, GAP, piece.time_us)

    def _take(
        self, data: bytes, start: int, stop: int, shift: int, piece: Piece, ends: bool
    ) -> None:
        self.is_touched = True
        if self._stream is not None and piece.stream != self._stream:
            return
        if self._first is None and (start < stop or ends):
            self._first = (start + shift, piece.stream, piece.time_us)
        room = MAX_TEXT - len(self._text)
        self._text += data[start : min(stop, start + room)]
        self.is_cut = self.is_cut or stop - start > room

    def finish(self) -> LogLine | None:
        """End the line in hand; None where it has nothing of the stream asked for."""
        done = None
        if self._first is not None:
            offset, stream, time_us = self._first
            done = LogLine(
                self.line, offset, stream, time_us, bytes(self._text), self.is_cut, self._gap
            )
        self.line += 1
        self._begin()
        return done


class _Progress(NamedTuple):
    """Where `_lines` is, told about once a `SLICE`."""

    line: int
    scanned: int


def _lines(
    backend: Backend, address: Address, extent: Extent, line: int, stream: int | None
) -> Iterator[LogLine | _Progress]:
    """Yield the lines from `line` on, and now and then the progress.

    Of a line that is longer than its text may be, the rest is jumped over by the index.
    """
    offset = locate(backend, address, line)
    collector = _Collector(line, stream)
    scanned = told = 0
    while offset is not None:
        for row, body in walk(backend, address, offset):
            yield from collector.feed(row, body, offset)
            scanned += row.length
            if scanned - told >= SLICE:
                told = scanned
                yield _Progress(collector.line, scanned)
            if collector.is_cut:
                break
        else:
            break
        offset = None
        if collector.line < extent.newlines:
            offset = locate(backend, address, collector.line + 1)
        if offset is not None:
            last = collector.finish()
            if last is not None:
                yield last
    if collector.is_touched and (last := collector.finish()):
        yield last


def read_lines(
    backend: Backend, address: Address, line: int, count: int, stream: int | None
) -> Sliced[LogLines]:
    """Return up to `count` lines from `line` on, at most `MAX_RESULT` bytes of them."""
    extent = backend.extent(address)
    found: list[LogLine] = []
    size = 0
    next_line = total = extent.lines
    if count <= 0:
        next_line = line
    elif line < total:
        for item in _lines(backend, address, extent, line, stream):
            if isinstance(item, _Progress):
                yield
                if item.scanned >= SCAN and item.line > line:
                    next_line = item.line
                    break
                continue
            found.append(item)
            size += len(item.text) + _LINE_COST
            total = max(total, item.line + 1)  # it may have grown meanwhile
            next_line = max(next_line, total)
            if len(found) == count or size >= MAX_RESULT:
                next_line = item.line + 1
                break
    return LogLines(line, found, total, next_line if next_line < total else None)


def tail(backend: Backend, address: Address, count: int, stream: int | None) -> Sliced[LogLines]:
    """Return the last `count` lines; with a filter, look back further and further for them."""
    extent = backend.extent(address)
    window = count if stream is None else count * 4
    while True:
        first = max(0, extent.lines - window)
        kept: deque[LogLine] = deque()
        size = 0
        is_full = count <= 0
        for item in _lines(backend, address, extent, first, stream) if count > 0 else ():
            if isinstance(item, _Progress):
                yield
                continue
            kept.append(item)
            size += len(item.text) + _LINE_COST
            while len(kept) > count or size > MAX_RESULT:
                size -= len(kept.popleft().text) + _LINE_COST
                is_full = True
        if is_full or len(kept) == count or first == 0:
            break
        window *= 8
    lines = list(kept)
    total = max(extent.lines, lines[-1].line + 1) if lines else extent.lines
    return LogLines(lines[0].line if lines else first, lines, total, None)
