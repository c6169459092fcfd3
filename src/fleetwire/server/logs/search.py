"""Searching a log: the lines that hold a text, without ever holding the log.

A chunk is searched as a whole (memmem runs at gigabytes a second); only around a hit are lines
counted. A text may begin in one chunk and end in a later one: the last bytes are carried over.
"""

from __future__ import annotations

from fleetwire.server.logs import chunks, reading
from fleetwire.server.logs.backend import Address, Backend, Row
from fleetwire.server.logs.base import MAX_RESULT, MAX_TEXT, BadSearch, LogMatch, LogMatches

MAX_NEEDLE = 1024
"""Bytes of a text to search for, at most."""


class _Scan:
    """Where a search is: the line in hand, and the bytes before it that may begin a match."""

    def __init__(self, needle: bytes, line: int, offset: int) -> None:
        self.needle = needle
        self.line = line
        self.line_offset = offset
        self.carry = b""
        self.is_matched = False  # the line in hand is a match already

    def feed(self, row: Row, body: chunks.Body, skip: int) -> list[LogMatch]:
        """Return the matching lines, `text` empty where the line is not wholly in the chunk.

        ``skip`` is the payload position to begin at (behind the newline before the first line).
        """
        data = body.data[skip:] if skip else body.data
        joined = self.carry + data
        shift = len(self.carry)
        found: list[LogMatch] = []
        counted = 0  # payload position up to which newlines are counted
        line, line_start = self.line, -1  # -1: the line began before this chunk
        search_from = 0
        if self.is_matched:
            end = data.find(b"\n")
            search_from = len(joined) if end < 0 else shift + end + 1
        while (hit := joined.find(self.needle, search_from)) >= 0:
            at = max(hit - shift, 0)
            if newlines := data.count(b"\n", counted, at):
                line += newlines
                line_start = data.rindex(b"\n", counted, at) + 1
            counted = at
            end = data.find(b"\n", at)
            if line_start < 0 and not shift and self.line_offset >= row.offset:
                line_start = 0  # it begins with the chunk, or where the search does
            if hit < shift or line_start < 0:
                offset, text = self.line_offset, b""
            else:
                offset = self.line_offset
                if line_start:
                    before = reading.log_position(body.pieces, line_start - 1 + skip)
                    offset = row.offset + before + 1
                stop = end if end >= 0 else len(data)
                is_whole = end >= 0 or stop - line_start >= MAX_TEXT
                text = data[line_start : min(stop, line_start + MAX_TEXT)] if is_whole else b""
            found.append(LogMatch(line, offset, text))
            if end < 0:
                search_from = len(joined)
                break
            search_from = shift + end + 1
        self._go_on(row, body, skip, data, found)
        return found

    def _go_on(
        self, row: Row, body: chunks.Body, skip: int, data: bytes, found: list[LogMatch]
    ) -> None:
        last = data.rfind(b"\n")
        if last >= 0:
            self.line = row.line + row.lines
            self.line_offset = row.offset + reading.log_position(body.pieces, last + skip) + 1
            self.carry = b""
            self.is_matched = False
        self.is_matched = self.is_matched or bool(found and found[-1].line == self.line)
        keep = len(self.needle) - 1
        self.carry = (self.carry + data[last + 1 :])[-keep:] if keep else b""


def search(
    backend: Backend, address: Address, text: str, from_line: int, limit: int
) -> reading.Sliced[LogMatches]:
    """Return up to `limit` lines from `from_line` on that hold `text`."""
    needle = text.encode()
    if not needle or len(needle) > MAX_NEEDLE or b"\n" in needle:
        raise BadSearch(
            f"A text to search for has from 1 to {MAX_NEEDLE} bytes and no line break.", field="q"
        )
    found: list[LogMatch] = []
    backend.extent(address)  # a segment that is gone says so
    offset = reading.locate(backend, address, from_line)
    if offset is None or limit <= 0:
        return LogMatches([], None)
    scan = _Scan(needle, from_line, offset)
    scanned = since = size = 0
    for row, body in reading.walk(backend, address, offset):
        skip = len(chunks.cut(body, 0, offset - row.offset).data) if row.offset < offset else 0
        for match in scan.feed(row, body, skip):
            found.append(match if match.text else _with_text(backend, address, match))
            size += len(found[-1].text) + 100
            if len(found) >= limit or size >= MAX_RESULT:
                more = match.line + 1 < backend.extent(address).lines
                return LogMatches(found, match.line + 1 if more else None)
        scanned += row.length
        since += row.length
        if since >= reading.SLICE:
            since = 0
            yield
        if scanned >= reading.SCAN and scan.line > from_line and not scan.is_matched:
            return LogMatches(found, scan.line)
    return LogMatches(found, None)


def _with_text(backend: Backend, address: Address, match: LogMatch) -> LogMatch:
    """Fill in the beginning of a line that lies in more than one chunk."""
    text = b""
    for row, body in reading.walk(backend, address, match.offset):
        skip = len(chunks.cut(body, 0, match.offset - row.offset).data)
        end = body.data.find(b"\n", skip)
        text += body.data[skip : end if end >= 0 else skip + MAX_TEXT - len(text)]
        if end >= 0 or len(text) >= MAX_TEXT:
            break
    return LogMatch(match.line, match.offset, text[:MAX_TEXT])
