"""Which keys of the server may sign orders for this node: those it enrolled with, and those that
have followed since (core.envelopes.learn). Durable in identity.json before an order counts on it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import msgspec

from fleetwire.agent import identity as identities
from fleetwire.agent import keys
from fleetwire.agent.identity import Identity
from fleetwire.core import envelopes
from fleetwire.core.envelopes import SignedKey

_log = logging.getLogger(__name__)


class ServerKeys:
    """One per agent process."""

    def __init__(self, state: str, identity: Identity) -> None:
        self._state = state
        self._identity = identity

    @property
    def known(self) -> Mapping[str, bytes]:
        """The keys that count, by id, the newest last."""
        return self._identity.server_keys

    def hear(self, chain: Sequence[SignedKey]) -> None:
        """Take what follows from the server's word on its keys. Raises OSError."""
        found = envelopes.learn(
            self.known, chain, cluster=self._identity.cluster, verifies=keys.verifies
        )
        if found == self.known:
            return
        after = msgspec.structs.replace(self._identity, server_keys=found)
        identities.save(self._state, after)
        self._identity = after
        _log.info("orders are signed by the key %s from now on", next(reversed(found)))
