"""Storage: watches the disk. It exists because space comes and goes without any request: what was
given away of the reserve is taken again here, and logs that wait go on (promise P15).
"""

from __future__ import annotations

import asyncio

import structlog

from fleetwire.server.durable.reserve import Reserve

_log = structlog.get_logger()


class StorageLoop:
    """See the module."""

    name = "storage"
    topics: tuple[str, ...] = ()
    every_s = 1.0

    def __init__(self, reserve: Reserve) -> None:
        self._reserve = reserve
        self._had_room = True

    async def round(self) -> str:
        """Look at the disk; say in the log when it becomes full, and when it no longer is."""
        room = await asyncio.to_thread(self._reserve.look)
        sentence = self._reserve.sentence()
        if room.grows != self._had_room:
            self._had_room = room.grows
            if room.grows:
                _log.info("the disk has room again", disk=sentence)
            else:
                _log.error("the disk is almost full", disk=sentence)
        return sentence
