"""Which of many alike things are worth writing down: some of each per minute, the rest counted.

Who is refused may ask again as fast as they can; what they fill with it must have a bound, and
nothing of it may go without a trace.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

KEYS: Final = 4096
"""So many keys are known at a time; the one that was quiet for longest is forgotten first."""


class Sparing:
    """Lets `most` of each key through in any `within_s` seconds, and `most_of_all` of all keys
    together. Not for use from several threads.
    """

    def __init__(self, most: int, *, within_s: float, most_of_all: int) -> None:
        self._most = most
        self._most_of_all = most_of_all
        self._within_s = within_s
        self._known: OrderedDict[str, _Window] = OrderedDict()
        self._all = _Window(0.0)

    def take(self, key: str, now: float) -> int | None:
        """Return None where this one is not to be written, else how many of its key were left out
        since the last one that was. `now` is monotonic, in seconds.
        """
        window = self._known.get(key)
        if window is None:
            window = self._known[key] = _Window(now)
            if len(self._known) > KEYS:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        every = self._all
        window.begin(now, self._within_s)
        every.begin(now, self._within_s)
        if window.written >= self._most or every.written >= self._most_of_all:
            window.left_out += 1
            return None
        window.written += 1
        every.written += 1
        left_out, window.left_out = window.left_out, 0
        return left_out

    def give_back(self, key: str) -> None:
        """What was let through came to nothing: it does not count."""
        for window in (self._known.get(key), self._all):
            if window is not None and window.written:
                window.written -= 1


class _Window:
    """A stretch of time, what was written in it, and what was left out since."""

    __slots__ = ("left_out", "since", "written")

    def __init__(self, since: float) -> None:
        self.since = since
        self.written = 0
        self.left_out = 0

    def begin(self, now: float, lasts: float) -> None:
        """Begin anew where the stretch is over."""
        if now - self.since >= lasts:
            self.since = now
            self.written = 0
