"""The node's view of the server's promise and of the server's clock.

A lease counts from when the last answered heartbeat was *sent*, by a clock that also runs while
the machine sleeps (architecture 5.5). The server's clock, not ours, says whether an order has
expired: a node with a wrong clock works all the same (P17).
"""

from __future__ import annotations

from collections.abc import Callable

from fleetwire.core.leases import lease_holds


class Lease:
    """One per agent; links renew it. `clock`: seconds, monotonic. `wall`: microseconds."""

    def __init__(self, clock: Callable[[], float], wall: Callable[[], int]) -> None:
        self._clock = clock
        self._wall = wall
        self._lease_s = 0.0
        self._sent_at: float | None = None
        self._server_clock: tuple[int, float] | None = None

    def grant(self, *, sent_at: float, lease_s: float, server_clock: int) -> None:
        """The server accepted the hello that was sent then."""
        self._lease_s = lease_s
        self._sent_at = sent_at
        self._server_clock = (server_clock, self._clock())

    def renew(self, *, sent_at: float, server_clock: int) -> None:
        """The server answered the heartbeat that was sent then."""
        if self._sent_at is None or sent_at > self._sent_at:
            self._sent_at = sent_at
        self._server_clock = (server_clock, self._clock())

    def holds(self) -> bool:
        """Whether a start is covered now."""
        return lease_holds(self._sent_at, self._lease_s, self._clock())

    def server_now(self) -> int:
        """The server's wall clock, as well as we can tell; ours before it has said anything."""
        if self._server_clock is None:
            return self._wall()
        at, heard = self._server_clock
        return at + int((self._clock() - heard) * 1_000_000)
