"""Credit: how many unacknowledged log bytes an agent may have under way on one link.

Counted in log bytes, per link, over all its attempts: one busy task cannot fill the server's
memory, and neither can a thousand quiet ones.
"""

from __future__ import annotations


class Credit:
    """Sent and durable log positions of each attempt on one link."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._sent: dict[str, int] = {}
        self._durable: dict[str, int] = {}
        self._under_way = 0

    @property
    def free(self) -> int:
        """Bytes that may still be sent now; never negative."""
        return max(0, self.limit - self._under_way)

    def position(self, attempt: str) -> int | None:
        """Return up to where the attempt's log was sent, None before the server said `have`."""
        return self._sent.get(attempt)

    def durable(self, attempt: str) -> int:
        """Return the server's durable length as last heard."""
        return self._durable.get(attempt, 0)

    def rewind(self, attempt: str, length: int) -> None:
        """The server's length is `length`; whatever was sent past it is to be sent again."""
        self.forget(attempt)
        self._sent[attempt] = self._durable[attempt] = length

    def sent(self, attempt: str, end: int) -> None:
        """Bytes up to `end` were given to the link."""
        before = self._sent[attempt]
        if end < before:
            raise AssertionError(f"log bytes of {attempt} were sent backwards: {end} < {before}")
        self._sent[attempt] = end
        self._under_way += end - before

    def acknowledged(self, attempt: str, length: int) -> None:
        """The server has committed up to `length`. Old and repeated words change nothing."""
        if attempt not in self._durable:
            return
        length = min(length, self._sent[attempt])
        gained = length - self._durable[attempt]
        if gained > 0:
            self._durable[attempt] = length
            self._under_way -= gained

    def forget(self, attempt: str) -> None:
        """The attempt is gone from this link."""
        sent = self._sent.pop(attempt, 0)
        self._under_way -= sent - self._durable.pop(attempt, 0)
