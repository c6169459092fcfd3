"""Which stops this node carries out: those that its server has signed (core.stops), once the
server has said with its key that it signs them. Until then it is an older server, or nobody has
heard of it yet, and a stop is taken as it comes.

No server is needed for a task's own deadline and quota, which are in the start's signed order.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final, NamedTuple

from fleetwire.agent import keys
from fleetwire.agent.identity import Identity
from fleetwire.core import limits
from fleetwire.core.desired import Wanted
from fleetwire.core.stops import stop_bytes, stop_objection

# Kept until they can be told; whoever makes more of them at once is alarm enough.
_KEPT: Final = 64
_log = logging.getLogger(__name__)


class Refusal(NamedTuple):
    """A stop that was not carried out, and when (microseconds since 1970)."""

    attempt: str
    epoch: int
    at: int
    reason: str


class Stops:
    """One per agent."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._keys: Mapping[str, bytes] = identity.server_keys
        self._signed = identity.signs_stops
        self._refused: dict[tuple[str, int, str], Refusal] = {}
        self._untold: list[Refusal] = []

    def trust(self, server_keys: Mapping[str, bytes], *, signed: bool) -> None:
        """Take stops signed by these keys from now on, and, where they are `signed`, no others."""
        self._keys = server_keys
        self._signed = signed

    def objection(self, wanted: Wanted, begun: int | None) -> str | None:
        """Say why a stop is not to be carried out, or None. `begun` is the epoch that the attempt
        began under here, or is about to.
        """
        order = wanted.stop
        if order is None:
            return "the stop is not signed" if self._signed else None
        key = self._keys.get(order.key)
        if key is None:
            return f"the stop is signed with a key that this node does not know: {order.key[:64]!r}"
        if not keys.verifies(key, stop_bytes(order.envelope), order.signature):
            return "the stop's signature is wrong"
        return stop_objection(
            order.envelope,
            cluster=self._identity.cluster,
            node=self._identity.node,
            attempt=wanted.attempt,
            epoch=wanted.epoch,
            grace=wanted.grace,
            begun=begun,
        )

    def refuse(self, wanted: Wanted, reason: str, *, at: int) -> None:
        """Note a refusal: once for each attempt, epoch and reason, whoever repeats it."""
        reason = reason[: limits.REASON_CHARS]
        key = (wanted.attempt, wanted.epoch, reason)
        if key in self._refused:
            return
        if len(self._refused) >= _KEPT:
            del self._refused[next(iter(self._refused))]
        refusal = self._refused[key] = Refusal(wanted.attempt, wanted.epoch, at, reason)
        self._untold = [*self._untold[1 - _KEPT :], refusal]
        _log.error("did not stop %s: %s; is that the server?", wanted.attempt, reason)

    def take_untold(self) -> list[Refusal]:
        """Return the refusals that no server was told of; each is returned once."""
        untold, self._untold = self._untold, []
        return untold
