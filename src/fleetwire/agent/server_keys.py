"""Which keys of the server may sign orders for this node: those it enrolled with, and those that
have followed since (core.envelopes.learn); and whether it signs stops. Durable in identity.json
before an order counts on it.
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
from fleetwire.core.stops import SignedWord, word_bytes

_log = logging.getLogger(__name__)


class ServerKeys:
    """One per agent process."""

    def __init__(self, state: str, identity: Identity) -> None:
        self._state = state
        self._identity = identity
        self._saved = True  # whether the identity is durable as it is

    @property
    def known(self) -> Mapping[str, bytes]:
        """The keys that count, by id, the newest last."""
        return self._identity.server_keys

    @property
    def signs_stops(self) -> bool:
        """Whether the server has said that it signs stops."""
        return self._identity.signs_stops

    def hear_of_stops(self, signed: SignedWord) -> None:
        """Take the server's word that it signs stops: it holds for ever, or who takes the server's
        place would only have to say nothing of it. Raises OSError where it cannot be kept; then it
        holds until the agent ends, and keeping it is tried again at the next word.
        """
        known = self.signs_stops and self._saved
        if known or signed.word.cluster != self._identity.cluster:
            return
        key = self.known.get(signed.key)
        if key is None or not keys.verifies(key, word_bytes(signed.word), signed.signature):
            _log.error("the word on signed stops is not signed by a key of this node's server")
            return
        # In force at once, whatever the disk says.
        self._identity = msgspec.structs.replace(self._identity, signs_stops=True)
        self._saved = False
        identities.save(self._state, self._identity)
        self._saved = True
        _log.info("no stop is taken from now on that the server has not signed")

    def hear(self, chain: Sequence[SignedKey]) -> None:
        """Take what follows from the server's word on its keys. Raises OSError."""
        found = envelopes.learn(
            self.known, chain, cluster=self._identity.cluster, verifies=keys.verifies
        )
        if found == self.known:
            return
        after = msgspec.structs.replace(self._identity, server_keys=found)
        identities.save(self._state, after)
        self._identity, self._saved = after, True
        _log.info("orders are signed by the key %s from now on", next(reversed(found)))
