"""Secrets: forgets what was sealed for a node once its attempt has begun. It exists because the
sealed values stand in the record for as long as the order may have to be sent again, and no longer.
"""

from __future__ import annotations

from functools import partial

from fleetwire.server.domain import secrets
from fleetwire.server.loops.rest import Rest
from fleetwire.server.store.engine import Database


class SecretsLoop:
    """See the module."""

    name = "secrets"
    topics: tuple[str, ...] = ()
    every_s = 2.0

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rest = Rest(database)

    async def round(self) -> str:
        """Look for what is sealed and spent; delete it."""
        forgot = 0
        while self._rest.is_over():
            found, some = await self._database.read(secrets.spent)
            self._rest.after(nothing_waits=not some)
            if not found:
                break
            await self._database.write(partial(secrets.drop, found=found))
            forgot += len(found)
        return f"forgot what was sealed for {forgot} attempts"
