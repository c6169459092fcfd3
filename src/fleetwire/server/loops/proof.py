"""Proof: shows once a minute that everything will end (law 8). It exists because a broken
promise of this kind makes no noise by itself: something simply never happens.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from fleetwire.server.domain import proof
from fleetwire.server.domain.proof import Unproven
from fleetwire.server.store.engine import Database

SHOWN: Final = 20
_log = structlog.get_logger()


class ProofLoop:
    """See the module. `clock` is microseconds since 1970; `found` is what the last look found."""

    name = "proof"
    topics: tuple[str, ...] = ()
    every_s = 60.0

    def __init__(self, database: Database, *, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock
        self.found: tuple[Unproven, ...] = ()

    async def round(self) -> str:
        """Look at all that is not final; say loudly what nobody would end."""
        found = await self._database.read(partial(proof.unproven, now=self._clock()))
        self.found = tuple(found)
        if not found:
            return "everything that is not final has an owner, a deadline and a next action"
        for one in found[:SHOWN]:
            _log.error("nobody would ever end this (law 8)", id=one.id, because=one.why)
        return f"{len(found)} attempts or runs would never end; the log names them"

    @property
    def warning(self) -> str | None:
        """What readiness says of it: how many, never which."""
        if not self.found:
            return None
        return (
            f"{len(self.found)} attempts or runs have no owner, deadline or next action. "
            "The server's log names them; please report it as a fault."
        )
