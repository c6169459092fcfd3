"""Fair shares of places that may run out: whoever has most of them gives way to who has fewer.

Nobody is held to a number: an address that is alone may have all places (a fleet behind one
router). Only when others wait it has to share, until all that wait have as many as it has.
"""

from __future__ import annotations

import ipaddress
from typing import Final, Generic, TypeVar

ROUTED_BITS: Final = 64
"""Whoever has one IPv6 address usually has this much of a network for himself (RFC 6177)."""

Item = TypeVar("Item")


def origin(address: str | None) -> str:
    """Return whom an address stands for: an IPv4 address itself, an IPv6 address its /64. What is
    no address is taken as it is; none at all is one origin as well.
    """
    try:
        found = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return address or ""
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, ROUTED_BITS), strict=False))


class Shares(Generic[Item]):
    """Who holds what, oldest first. Each call costs about the same, however many there are."""

    def __init__(self) -> None:
        self._held: dict[str, dict[Item, None]] = {}
        self._by_count: dict[int, dict[str, None]] = {}

    def count(self, holder: str) -> int:
        """Return how much somebody holds."""
        return len(self._held.get(holder, ()))

    def add(self, holder: str, item: Item) -> None:
        """Give an item to somebody."""
        before = self.count(holder)
        self._held.setdefault(holder, {})[item] = None
        self._move(holder, before)

    def remove(self, holder: str, item: Item) -> bool:
        """Take an item back; say whether it was his."""
        before = self.count(holder)
        items = self._held.get(holder, {})
        if item not in items:
            return False
        del items[item]
        if not items:
            del self._held[holder]
        self._move(holder, before)
        return True

    def to_give_way(self, newcomer: str) -> Item | None:
        """Return what has to be given up so that a newcomer can have a place: the oldest item of
        who has most, if that is more than the newcomer would have with it.
        """
        most = max(self._by_count, default=0)
        if most <= self.count(newcomer) + 1:
            return None
        richest = next(iter(self._by_count[most]))
        return next(iter(self._held[richest]))

    def _move(self, holder: str, before: int) -> None:
        """Keep the holders of each count; there are few different counts."""
        if before:
            del self._by_count[before][holder]
            if not self._by_count[before]:
                del self._by_count[before]
        now = self.count(holder)
        if now:
            self._by_count.setdefault(now, {})[holder] = None
