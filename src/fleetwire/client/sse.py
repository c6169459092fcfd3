"""Reading server-sent events, without IO: bytes in, events out (HTML standard, 9.2.6).

The reader takes any split of the bytes and holds at most one unfinished event, of bounded
size. Line ends are LF or CRLF; a lone CR, which the standard also allows and no server of
ours sends, does not end a line.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from fleetwire.client.errors import BadAnswer

EVENT_BYTES: Final = 16 * 1024 * 1024


class ServerEvent(NamedTuple):
    """One event; `id` is the last id seen on the stream, for `Last-Event-ID`."""

    kind: str
    data: bytes
    id: str | None


class EventReader:
    """Collects bytes into events. One reader lives as long as one connection."""

    def __init__(self, *, most: int = EVENT_BYTES) -> None:
        self._most = most
        # Pieces of the unfinished line: joined once, so that a long event costs its own length.
        self._pieces: list[bytes] = []
        self._held = 0
        self._kind = ""
        self._data: list[bytes] = []
        self._size = 0
        self._id: str | None = None

    def feed(self, block: bytes) -> list[ServerEvent]:
        """Take the next bytes of the stream and return the events that they complete."""
        if b"\n" not in block:
            self._hold(block)
            return []
        if self._pieces:
            block = b"".join((*self._pieces, block))
            self._pieces.clear()
            self._held = 0
        events: list[ServerEvent] = []
        start = 0
        while (end := block.find(b"\n", start)) >= 0:
            line = block[start:end]
            start = end + 1
            if line.endswith(b"\r"):
                line = line[:-1]
            if line:
                self._field(line)
            elif self._data:
                # The standard drops an event without data.
                data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
                events.append(ServerEvent(self._kind or "message", data, self._id))
                self._reset()
            else:
                self._reset()
        self._hold(block[start:])
        return events

    def _reset(self) -> None:
        self._kind = ""
        self._data = []
        self._size = 0

    def _hold(self, rest: bytes) -> None:
        if rest:
            self._pieces.append(rest)
            self._held += len(rest)
            self._bound(self._held + self._size)

    def _bound(self, size: int) -> None:
        if size > self._most:
            raise BadAnswer(
                f"An event of the server is longer than {self._most} bytes.",
                hint="Is the URL that of a Fleetwire server?",
            )

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if value.startswith(b" "):
            value = value[1:]
        if name == b"data":
            self._size += len(value)
            self._bound(self._size)
            self._data.append(value)
        elif name == b"event":
            self._kind = value.decode("utf-8", "replace")
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")
        # A comment (empty name), `retry` and unknown fields mean nothing to us.
