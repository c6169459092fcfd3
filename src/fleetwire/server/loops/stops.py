"""Stops: signs what is wished to stop. It exists because a stop may be wished for where there is
no key: by a request, by a report that a gateway takes, by a retry.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from fleetwire.core.stops import SignedWord, StopsWord, word_bytes
from fleetwire.server.domain import stops
from fleetwire.server.domain.stops import TOPIC, StopSigning
from fleetwire.server.loops.rest import Rest
from fleetwire.server.signing import Signer
from fleetwire.server.store.engine import Database, Tx


def word(signer: Signer, cluster_id: str, now: int) -> SignedWord:
    """Return the server's word that it signs stops; `now` is microseconds since 1970."""
    said = StopsWord(cluster_id, now)
    return SignedWord(said, signer.key_id, signer.sign(word_bytes(said)))


class StopsLoop:
    """See the module."""

    name = "stops"
    topics = (TOPIC,)
    every_s = 1.0

    def __init__(self, database: Database, signer: Signer, *, cluster_id: str) -> None:
        self._database = database
        self._signing = StopSigning(cluster_id, signer.key_id, signer.sign)
        self._rest = Rest(database)

    def react(self, tx: Tx, topics: Collection[str]) -> Collection[str]:
        """Sign in the commit of the wish (a `Reaction`); where that is too much at once, the loop
        goes on.
        """
        if TOPIC not in topics:
            return ()
        return (TOPIC,) if stops.sign(tx, self._signing) < stops.PER_ROUND else ()

    async def round(self) -> str:
        """Sign until nothing is left."""
        count = 0
        while self._rest.is_over():
            waits = await self._database.read(stops.is_any_unsigned)
            self._rest.after(nothing_waits=not waits)
            if not waits:
                break
            count += await self._database.write(partial(stops.sign, signing=self._signing))
        return f"signed {count} stops"
