"""What a database must do for the log store: rows in, rows out, one transaction at a time.

Two implementations: `sqlite` (a file a day) and `postgres` (a pair of tables a day). All of it
blocks. The writing half is called on the writer thread only, the reading half on any thread.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from fleetwire.core.errors import FleetwireError


class Row(NamedTuple):
    """One stored chunk. ``line`` counts the newlines before it, ``lines`` those in it."""

    offset: int
    length: int
    line: int
    lines: int
    time_us: int
    body: bytes


class Extent(NamedTuple):
    """How far an attempt's log reaches: log bytes, newlines, and whether a line is open."""

    length: int = 0
    newlines: int = 0
    is_open: bool = False

    @property
    def lines(self) -> int:
        """Lines, a last one without a newline included."""
        return self.newlines + self.is_open


class Address(NamedTuple):
    """Where an attempt's log is."""

    segment: str
    attempt: str


class Backend(Protocol):
    """One database of log segments."""

    exclusive: bool
    """Whether this process alone writes here, so that what it knows stays true."""

    # -- writing: begin, then any of the others, then commit or rollback ---------------------

    def begin(self) -> None:
        """Begin a transaction."""
        ...

    def links(self, nodes: set[str]) -> dict[str, int]:
        """Return the newest link epoch of each node that has one; they stay until commit."""
        ...

    def extents_to_write(self, addresses: set[Address]) -> dict[Address, Extent | FleetwireError]:
        """Return how far each log reaches, which stays so until commit; `LogGone` for some."""
        ...

    def put_link(self, node: str, link_epoch: int) -> None:
        """Store a node's newest link epoch."""
        ...

    def put_rows(self, rows: list[tuple[Address, Row]], extents: dict[Address, Extent]) -> None:
        """Store chunks and the new extents of their logs."""
        ...

    def clear(self, address: Address) -> None:
        """Delete an attempt's chunks; `put_rows` gives the new extent."""
        ...

    def drop(self, segment: str, reason: str) -> None:
        """Delete a segment and keep the reason. Durable by itself; called outside transactions."""
        ...

    def commit(self) -> None:
        """COMMIT."""
        ...

    def rollback(self, error: BaseException) -> None:
        """Undo everything since `begin`, after `error`; never raises."""
        ...

    def diagnose(self, error: BaseException) -> FleetwireError | None:
        """Return what `error` means to the server, None where it is a fault of this code."""
        ...

    # -- reading -----------------------------------------------------------------------------

    def segments(self) -> dict[str, int]:
        """Return the segments that are there, each with the bytes of disk that it takes."""
        ...

    def extent(self, address: Address) -> Extent:
        """Return how far a log reaches. Raises `LogGone`."""
        ...

    def extents(self, addresses: list[Address]) -> dict[Address, Extent]:
        """Return how far each log reaches, those of deleted segments left out."""
        ...

    def rows(self, address: Address, offset: int, count: int) -> list[Row]:
        """Return up to `count` chunks that end after `offset`, in order. Raises `LogGone`."""
        ...

    def row_before_line(self, address: Address, line: int) -> Row | None:
        """Return the chunk that holds the newline before `line` (>= 1). Raises `LogGone`."""
        ...

    def close_writer(self) -> None:
        """Close the writing half."""
        ...

    def close_readers(self) -> None:
        """Close the reading half."""
        ...
