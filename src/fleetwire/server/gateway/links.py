"""Which nodes have a link in this process, and when each was last heard (P10)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Generic, Protocol, TypeVar

from fleetwire.core.flapping import came_back, reconnects
from fleetwire.protocol.messages import CLOSE_NEWER_LINK
from fleetwire.server.domain.nodes import Reading


class AnyLink(Protocol):
    """A link, as the registry sees it."""

    node: str
    link_epoch: int

    def close(self, code: int, reason: str) -> None:
        """End the link soon."""
        ...


L = TypeVar("L", bound=AnyLink)


class Links(Generic[L]):
    """The registry. Everything in it happens in the event loop.

    `monotonic` is seconds, `clock` microseconds since 1970.
    """

    def __init__(self, *, monotonic: Callable[[], float], clock: Callable[[], int]) -> None:
        self._monotonic = monotonic
        self._clock = clock
        self._began = monotonic()
        self._links: dict[str, L] = {}
        self._heard: dict[str, float] = {}
        self._returns: dict[str, tuple[float, ...]] = {}
        self._skews: dict[str, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._links)

    def __iter__(self) -> Iterator[L]:
        return iter(list(self._links.values()))

    def get(self, node: str) -> L | None:
        """Return a node's link."""
        return self._links.get(node)

    def add(self, link: L) -> None:
        """Take a link whose hello was accepted and came now: the newest wins (5.6)."""
        older = self._links.get(link.node)
        if older is not None and older.link_epoch > link.link_epoch:
            older, link = link, older
        self._links[link.node] = link
        now = self._monotonic()
        if link.node in self._heard:  # the first link to this process is nobody's return
            self._returns[link.node] = came_back(self._returns.get(link.node, ()), now)
        self._heard[link.node] = now
        if older is not None:
            older.close(CLOSE_NEWER_LINK, "A newer link of this node has taken over.")

    def remove(self, link: L) -> None:
        """Forget a link that has ended; a newer one of its node stays."""
        if self._links.get(link.node) is link:
            del self._links[link.node]

    def keep(self, nodes: Collection[str]) -> None:
        """Forget how all others were heard that have no link here: fleets come and go."""
        for known in (self._heard, self._returns, self._skews):
            for node in [one for one in known if one not in nodes and one not in self._links]:
                del known[node]

    def heard(self, node: str) -> None:
        """Note that a frame of this node came now."""
        self._heard[node] = self._monotonic()

    def skewed(self, node: str, skew: int) -> None:
        """Note how far a node's clock seemed ahead, in microseconds, when a beat came.

        A beat that was long on its way makes a clock look slow: of two in a row the later one
        counts.
        """
        last = self._skews.get(node)
        self._skews[node] = (skew if last is None else last[1], skew)

    def away_s(self, node: str) -> float | None:
        """Return how long a node has been silent, None where it was never heard here."""
        heard = self._heard.get(node)
        return None if heard is None else self._monotonic() - heard

    def reading(self, node: str) -> Reading:
        """Tell how the node is heard. Never heard here means silent since this process began."""
        now = self._monotonic()
        heard = self._heard.get(node)
        if heard is None:
            return Reading(node in self._links, now - self._began, None)
        silent = now - heard
        skews = self._skews.get(node)
        return Reading(
            node in self._links,
            silent,
            self._clock() - round(silent * 1_000_000),
            reconnects(self._returns.get(node, ()), now),
            None if skews is None else max(skews),
        )
