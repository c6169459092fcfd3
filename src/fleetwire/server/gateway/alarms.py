"""What a node says that a person should know: it refused a stop that was not ours, or speaks of
attempts that are none of its. How often that is recorded has a bound: it may link anew as often as
it likes.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, TypeAlias

import structlog

from fleetwire.core.errors import FleetwireError
from fleetwire.core.sparing import Sparing
from fleetwire.protocol.messages import StopRefused
from fleetwire.server.domain import nodes
from fleetwire.server.store.engine import Database, DatabaseFailed

REFUSALS_PER_DAY: Final = 100
"""Refused stops that one node may have recorded, however often it links."""
STRANGE_EVERY_S: Final = 60.0
STRANGE_MOST: Final = 100
"""So often, and of so many, it is looked for a node whether an unknown attempt is another's."""
NODES_AT_ONCE: Final = 100
"""So many nodes may use up what is theirs at the same time."""

Work: TypeAlias = Coroutine[Any, Any, None]

_log = structlog.get_logger()


class Alarms:
    """One per process. Each word is answered by the work of recording it, None where there is
    none to do.
    """

    def __init__(self, database: Database, monotonic: Callable[[], float]) -> None:
        self._database = database
        self._monotonic = monotonic
        self._refusals = Sparing(
            REFUSALS_PER_DAY, within_s=86_400.0, most_of_all=NODES_AT_ONCE * REFUSALS_PER_DAY
        )
        self._strange = Sparing(1, within_s=STRANGE_EVERY_S, most_of_all=NODES_AT_ONCE)

    def refused(self, node: str, refusal: StopRefused) -> Work | None:
        """The node did not stop one of its attempts."""
        left_out = self._refusals.take(node, self._monotonic())
        if left_out is None:
            return None
        if left_out:
            _log.warning("refused stops were not recorded", node=node, count=left_out)
        return self._note_refused(node, refusal)

    async def _note_refused(self, node: str, one: StopRefused) -> None:
        try:
            was_news = await self._database.write(
                partial(
                    nodes.note_refused_stop,
                    node=node,
                    attempt=one.attempt,
                    epoch=one.epoch,
                    why=one.reason,
                ),
                grows=True,
            )
        except DatabaseFailed:
            raise
        except FleetwireError as error:
            _log.warning("a refused stop was not recorded", node=node, error=error.detail)
        else:
            if not was_news:  # an agent that comes back tells it again
                self._refusals.give_back(node)

    def strange(self, node: str, ids: tuple[str, ...]) -> Work | None:
        """The node speaks of what is none of its: nothing of it is stored."""
        left_out = self._strange.take(node, self._monotonic())
        return None if left_out is None else self._note_strange(node, ids[:STRANGE_MOST], left_out)

    async def _note_strange(self, node: str, ids: tuple[str, ...], left_out: int) -> None:
        try:
            await self._database.write(
                partial(nodes.note_strange, node=node, ids=ids, left_out=left_out), grows=True
            )
        except DatabaseFailed:
            raise
        except FleetwireError as error:
            _log.warning("strange attempts were not recorded", node=node, error=error.detail)
