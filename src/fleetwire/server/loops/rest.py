"""When a sweep need not look: nothing has changed since it found nothing.

Sweeps are there for nudges that were lost (5.14), and what is nudged was committed. So over a
record that has not changed since, a sweep that found nothing which waits for time, for a node or
for a log would find nothing again: a server at rest does not ask its database the same questions
every second.
"""

from __future__ import annotations

from fleetwire.server.store.engine import Database


class Rest:
    """What one sweep knows of the record. Ask `is_over` before each look, and say `after` it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._found_nothing_at: int | None = None
        self._looked_at: int | None = None

    def is_over(self) -> bool:
        """Say whether to look. The version is taken before the look, so that what is committed
        during it is looked at again.
        """
        self._looked_at = self._database.version()
        return self._looked_at is None or self._looked_at != self._found_nothing_at

    def after(self, *, nothing_waits: bool) -> None:
        """Take whether the look found that there is nothing at all to come back for."""
        self._found_nothing_at = self._looked_at if nothing_waits else None
