"""How long to wait before the next try to connect: for ever, with full jitter (P9).

Full jitter spreads the return of ten thousand agents over the whole interval; the first try
after a loss is quick, because most losses are a server's restart.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from fleetwire.protocol import messages

_FIRST: Final = (0.2, 1.0)
_LEAST_S: Final = 0.1
_SLOW_S: Final = (30.0, 60.0)
_RETRY_AFTER: Final = re.compile(r"retry_after=(\d+(?:\.\d+)?)")
_RETRY_AFTER_MOST_S: Final = 3600.0

# Trying again soon cannot help here: a person has to do something first. HTTP statuses of a
# refused upgrade and our own close codes, each with what it means for this node.
HOPELESS: Final = {
    401: "the server does not accept this node's identity",
    403: "the server does not let this node in",
    404: "the server does not know this node, or is no Fleetwire server",
    messages.CLOSE_UNAUTHENTICATED: "the server does not accept this node's identity",
    messages.CLOSE_FORBIDDEN: "the server does not let this node in",
    messages.CLOSE_NEWER_LINK: "another agent with this node's identity has connected",
    messages.CLOSE_VERSION: "server and agent have no protocol version in common",
}


def delay_s(
    failures: int, *, initial_s: float, most_s: float, chance: Callable[[], float]
) -> float:
    """Return the wait after so many failures in a row (1, 2, ...). `chance`: uniform in [0, 1)."""
    if failures <= 1:
        low, high = _FIRST
        return initial_s * (low + (high - low) * chance())
    ceiling = min(most_s, initial_s * 2.0 ** min(failures - 1, 32))
    return max(_LEAST_S, ceiling * chance())


def slow_delay_s(chance: Callable[[], float]) -> float:
    """Return the wait where only a person can help."""
    low, high = _SLOW_S
    return low + (high - low) * chance()


def asked_delay_s(reason: str, chance: Callable[[], float]) -> float | None:
    """Return the wait that a server asks for in a close reason, spread by a fifth; None if it
    asks for none.
    """
    found = _RETRY_AFTER.search(reason)
    if found is None:
        return None
    return min(float(found[1]), _RETRY_AFTER_MOST_S) * (1.0 + 0.2 * chance())
