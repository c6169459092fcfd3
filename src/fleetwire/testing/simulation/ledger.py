"""The outside ledger: what really happened on the nodes, noted when it happens.

Nothing of the product reads it. It is what the record is judged by.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(slots=True)
class Started:
    """One real start of a task: where, when (virtual seconds), and what it wrote.

    `written` are the bytes that its shim has read from it and stored (a gap would be none).
    `ended` says when nothing of it lived any more. `power_lost`: its node lost power meanwhile
    or before all of it was durable at the server.
    """

    attempt: str
    epoch: int
    node: str
    at: float
    written: bytearray = dataclasses.field(default_factory=bytearray)
    ended: float | None = None
    power_lost: bool = False

    @property
    def lives(self) -> bool:
        """Whether a process of it lives."""
        return self.ended is None


class Ledger:
    """All starts of a world, by attempt."""

    def __init__(self) -> None:
        self.starts: dict[str, list[Started]] = {}

    def start(self, attempt: str, epoch: int, node: str, at: float) -> Started:
        """Note a real start."""
        started = Started(attempt, epoch, node, at)
        self.starts.setdefault(attempt, []).append(started)
        return started

    def of(self, attempt: str) -> list[Started]:
        """Return the starts of an attempt, in order."""
        return self.starts.get(attempt, [])

    def alive(self, attempt: str) -> list[Started]:
        """Return what lives of an attempt now."""
        return [one for one in self.of(attempt) if one.lives]
