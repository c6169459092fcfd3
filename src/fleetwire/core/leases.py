"""Leases, link states and epochs: who may rely on what, and until when.

A lease is the server's promise to a node. The node counts it from the moment it *sent* its
last answered heartbeat, never from the receipt of the answer, so that its view always ends
before the server's (architecture 5.5). Times here are seconds of one process's monotonic clock.
"""

from __future__ import annotations

from typing import Final

from fleetwire.core import limits
from fleetwire.core.dispatch import LinkState

COUNTER_BITS: Final = 32
EPOCH_MAX: Final = 2**53 - 1


def lease_holds(sent_at: float | None, lease_s: float, now: float) -> bool:
    """Say, on the node, whether a start is still covered. `sent_at` is when the last answered
    heartbeat (or the hello) was sent, None before the first answer.
    """
    return sent_at is not None and now < sent_at + lease_s


def link_state(
    *, connected: bool, silent_s: float, heartbeat_s: float, flapping: bool = False
) -> LinkState:
    """Say how a node's link stands after `silent_s` without a frame (P10); one that flaps is not
    online, however well it is heard just now.
    """
    if silent_s >= limits.OFFLINE_AFTER_S:
        return "offline"
    if connected and silent_s < heartbeat_s * 1.5 and not flapping:
        return "online"
    return "unstable"


def next_epoch(generation: int, counter: int) -> int:
    """Return the fencing number of the next assignment: generation << 32 | counter (5.4)."""
    epoch = generation << COUNTER_BITS | counter
    if not 0 <= counter < 2**COUNTER_BITS or epoch > EPOCH_MAX:
        raise AssertionError("epochs are used up: a generation has 2**32 assignments")
    return epoch


def generation_of(epoch: int) -> int:
    """Return the generation an epoch belongs to."""
    return epoch >> COUNTER_BITS


def generation_past(ours: int, seen_by_node: int) -> int:
    """Return the generation to go on with when a node has seen that one. A node ahead of us
    means that our database was restored: we go past everything it may have seen (P2, P26).
    """
    return ours if seen_by_node <= ours else seen_by_node + 1
