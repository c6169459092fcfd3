"""Sealing: settles the logs of ended attempts by what the store holds (5.7). It exists because a
link can seal only what it has seen whole: after a reconnect, a restart or a node's loss the
record has to be completed from the bytes themselves.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from fleetwire.server.domain import attempts
from fleetwire.server.domain.attempts import Stored, fits, hash_said, is_cut
from fleetwire.server.logs.base import LogGone, LogStore
from fleetwire.server.loops.rest import Rest
from fleetwire.server.store.attempts import Progress
from fleetwire.server.store.engine import Database

PAGE: Final = 200


class SealingLoop:
    """See the module."""

    name = "sealing"
    topics = ("sealing",)
    every_s = 1.0

    def __init__(self, database: Database, logs: LogStore) -> None:
        self._database = database
        self._logs = logs
        self._rest = Rest(database)

    async def round(self) -> str:
        """Look at every ended attempt whose log is not settled; settle what can be."""
        looked = settled = 0
        after = ""
        while self._rest.is_over():
            page = await self._database.read(
                partial(attempts.ended_unsettled, after=after, limit=PAGE)
            )
            looked += len(page)
            settled += await self._settle(page)
            if len(page) < PAGE:
                self._rest.after(nothing_waits=not looked)
                break
            after = page[-1].id
        return f"{looked} logs are not settled, {settled} looked into"

    async def _settle(self, page: list[Progress]) -> int:
        lengths = await self._logs.lengths([(one.segment, one.id) for one in page])
        measured: dict[str, Stored] = {}
        deleted = [one.id for one in page if one.id not in lengths]
        if deleted:
            await self._database.write(partial(attempts.settle_deleted, ids=deleted))
        for one in page:
            if one.id not in lengths:
                continue
            length = lengths[one.id]
            complete = one.log_length is not None and length >= one.log_length
            if complete:
                measured[one.id] = await self._measure(one)
            elif one.log_state == "gone":
                measured[one.id] = Stored(length, None)
        if measured:
            await self._database.write(partial(attempts.settle, measured=measured))
        return len(measured) + len(deleted)

    async def _measure(self, one: Progress) -> Stored:
        """Hash what is stored; forget it where it is to be fetched once more.

        What the node has trimmed is never fetched again: what is stored of it may be good. The
        reset comes before the row says `again`: after a crash between the two the log is
        simply short, and the node sends it from there.
        """
        try:
            stored = Stored(*await self._logs.digest(one.segment, one.id))
            said = hash_said(one.exit, one.late_exit)
            whole = fits(one.log_length, said, stored) or is_cut(one.log_length, one.exit)
            if one.log_state == "open" and said and not whole and not one.log_begins:
                await self._logs.reset(one.segment, one.id)
        except LogGone:
            return Stored(0, None)
        return stored
