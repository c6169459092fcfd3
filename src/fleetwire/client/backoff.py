"""How long to wait before the next try: doubling, with jitter, up to a most, until patience
is over.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable


def chance() -> float:
    """Return a random number of [0, 1) (the module random is not worth its import here)."""
    return int.from_bytes(os.urandom(4), "little") / 2**32


class Backoff:
    """Waits of `first` seconds, doubling up to `most`, each between half of it and whole, so
    that many clients of a server that comes back do not come at once.
    """

    def __init__(
        self, first: float = 0.05, most: float = 2.0, *, chance: Callable[[], float] = chance
    ) -> None:
        self._first = first
        self._most = most
        self._chance = chance
        self._next = first

    def reset(self) -> None:
        """Begin again with the first wait: the other side has answered."""
        self._next = self._first

    def wait(self) -> float:
        """Return the seconds to wait now."""
        wait = self._next * (0.5 + self._chance() / 2)
        self._next = min(self._most, self._next * 2)
        return wait


class Patience:
    """Waits for a server that has gone away, for at most `limit` seconds on end.

    `notify` is called with a sentence when it goes away and with "" when it is back.
    """

    def __init__(self, limit: float, notify: Callable[[str], None] | None = None) -> None:
        self.limit = limit
        self._notify = notify
        self._backoff = Backoff()
        self._since: float | None = None

    def back(self) -> None:
        """Note that the server has been heard."""
        if self._since is not None:
            self._since = None
            self._backoff.reset()
            if self._notify is not None:
                self._notify("")

    def wait(self) -> bool:
        """Sleep until the next try is due; False at once when the patience is over."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
            if self._notify is not None:
                self._notify("The server is away, trying again.")
        pause = self._backoff.wait()
        if now + pause > self._since + self.limit:
            return False
        time.sleep(pause)
        return True
