"""Two small engines that work for all links of the process together: reports in, levels out.

A fleet speaks in many small words; taken together, a thousand of them cost a few statements.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from functools import partial
from typing import Final, Protocol

import structlog

from fleetwire.core.errors import FleetwireError
from fleetwire.protocol.messages import CLOSE_LATER
from fleetwire.server.domain import attempts, desired, nodes
from fleetwire.server.domain.attempts import Answer, NodeReport
from fleetwire.server.domain.desired import Asked, Level
from fleetwire.server.durable.groupcommit import call_soon
from fleetwire.server.gateway.links import Links
from fleetwire.server.log import log_failure
from fleetwire.server.nudges.base import Listener, Nudges
from fleetwire.server.store.engine import Database, DatabaseFailed, Tx

REPORTS_AT_ONCE: Final = 256
LEVELS_AT_ONCE: Final = 500
SWEEP_S: Final = 5.0
ADMISSION_S: Final = 2.0
RETRY_AFTER_S: Final = 5

_log = structlog.get_logger()


class SpokenTo(Protocol):
    """A link, as these engines see it."""

    node: str
    link_epoch: int

    def close(self, code: int, reason: str) -> None:
        """End the link soon."""
        ...

    def answered(self, report: NodeReport, answer: Answer) -> None:
        """Take the answer to a report that is committed now."""
        ...

    def asks(self) -> Asked:
        """Say what this link has told its node already."""
        ...

    def deliver(self, level: Level) -> None:
        """Tell the node what differs."""
        ...

    def sweep(self) -> bool:
        """Retry what stalled; say whether the level should be read."""
        ...


class Reports:
    """Takes the reports of all links, as many as there are, in one use case after another."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queue: list[tuple[SpokenTo, NodeReport]] = []
        self._some = asyncio.Event()

    def add(self, link: SpokenTo, report: NodeReport) -> None:
        """Queue a report. Those of one link are taken in order; `link.answered` follows."""
        self._queue.append((link, report))
        self._some.set()

    async def run(self) -> None:
        """Take reports until cancelled."""
        while True:
            await self._some.wait()
            batch = self._queue[:REPORTS_AT_ONCE]
            del self._queue[:REPORTS_AT_ONCE]
            if not self._queue:
                self._some.clear()
            await self._take(batch)

    async def _take(self, batch: Sequence[tuple[SpokenTo, NodeReport]]) -> None:
        reports = [report for _, report in batch]
        try:
            answers = await self._database.write(partial(attempts.report, reports=reports))
        except DatabaseFailed:
            raise
        except Exception as error:  # noqa: BLE001 - it goes to the links it belongs to
            await self._take_apart(batch, error)
            return
        for (link, report), answer in zip(batch, answers, strict=True):
            link.answered(report, answer)

    async def _take_apart(
        self, batch: Sequence[tuple[SpokenTo, NodeReport]], error: Exception
    ) -> None:
        """One link's report must not fail its neighbours': find out whose it is."""
        if len(batch) > 1 and not isinstance(error, FleetwireError):
            for one in batch:
                await self._take([one])
            return
        if not isinstance(error, FleetwireError):
            _log.error("a report could not be taken", node=batch[0][0].node, exc_info=error)
        for link, _ in batch:
            # Level-triggered: the node says it all again on its next link.
            link.close(CLOSE_LATER, f"retry_after={RETRY_AFTER_S}; the record could not be written")


class Levels:
    """Reads the level of all links that should look again, in one use case after another."""

    def __init__(
        self, database: Database, nudges: Nudges, links: Links[SpokenTo], *, key: str
    ) -> None:
        self._database = database
        self._nudges = nudges
        self._links = links
        self._key = key
        self._due: dict[str, None] = {}
        self._some = asyncio.Event()
        self._listener: Listener | None = None
        self._watched: dict[str, str] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def watch(self, node: str) -> None:
        """Look whenever this node is nudged, and once now."""
        topic = f"node:{node}"
        self._watched[topic] = node
        if self._listener is not None:
            self._listener.add(topic)
        self.look(node)

    def unwatch(self, node: str) -> None:
        """The node has no link here any more."""
        topic = f"node:{node}"
        if self._links.get(node) is None:
            self._watched.pop(topic, None)
            if self._listener is not None:
                self._listener.remove(topic)

    def react(self, tx: Tx, topics: Collection[str]) -> Collection[str]:
        """Read the levels of nodes with a link here in the commit that changes them (a
        `Reaction`, on the writer thread).
        """
        here = [topic for topic in topics if topic in self._watched]
        links = [self._links.get(self._watched[topic]) for topic in here]
        self._tell(tx, [link for link in links if link is not None])
        return here

    def look(self, node: str) -> None:
        """Read this node's level soon."""
        self._due[node] = None
        self._some.set()

    async def run(self) -> None:
        """Look until cancelled."""
        self._loop = asyncio.get_running_loop()
        async with self._nudges.listen() as listener, asyncio.TaskGroup() as group:
            self._listener = listener
            listener.add(*(f"node:{link.node}" for link in self._links))
            group.create_task(self._listen(listener), name="levels: nudges")
            group.create_task(self._sweep(), name="levels: sweep")
            group.create_task(self._watch_admission(), name="levels: admission")
            group.create_task(self._look_at_due(), name="levels: look")

    async def _listen(self, listener: Listener) -> None:
        while True:
            for topic in await listener.wait():
                self.look(topic.removeprefix("node:"))

    async def _sweep(self) -> None:
        """Nudges are hints: look every 5 s at who has something to hear (5.14)."""
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                waiting = await self._database.read(desired.nodes_to_tell)
            except DatabaseFailed:
                raise
            except Exception as error:  # noqa: BLE001 - logged; the next sweep looks again
                log_failure(_log, "the links could not be swept", error)
                continue
            for link in self._links:
                if link.sweep() or link.node in waiting:
                    self.look(link.node)

    async def _watch_admission(self) -> None:
        """Close the links of nodes that have lost their right to one, by whichever process: within
        5 s, nudges or not (promises, 2).
        """
        known: str | None = None
        while True:
            await asyncio.sleep(ADMISSION_S)
            try:
                word = await self._database.read(nodes.admission)
                if word == known:
                    continue
                let_in = await self._database.read(nodes.let_in)
            except DatabaseFailed:
                raise
            except Exception as error:  # noqa: BLE001 - logged; the next look is soon
                log_failure(_log, "who may have a link could not be read", error)
                continue
            known = word
            self._links.keep(let_in)
            for link in self._links:
                if link.node not in let_in:
                    self.look(link.node)

    async def _look_at_due(self) -> None:
        while True:
            await self._some.wait()
            due = list(self._due)[:LEVELS_AT_ONCE]
            for node in due:
                del self._due[node]
            if not self._due:
                self._some.clear()
            links = [link for link in map(self._links.get, due) if link is not None]
            try:
                await self._database.write(partial(self._tell, links=links))
            except DatabaseFailed:
                raise
            except Exception as error:  # noqa: BLE001 - logged; the sweep looks again
                log_failure(_log, "levels could not be read", error, nodes=len(links))

    def _tell(self, tx: Tx, links: Sequence[SpokenTo]) -> None:
        """Read levels on the writer thread; they are delivered in the order of the commits.

        What a link says of itself may be older than what was read for it before: then it is told
        something twice, which changes nothing (law 2).
        """
        if not links or self._loop is None:
            return
        asked = {link.node: link.asks() for link in links}
        levels = desired.desired(tx, asked, key=self._key)
        tx.afterwards(partial(call_soon, self._loop, self._deliver, links, levels))

    def _deliver(self, links: Sequence[SpokenTo], levels: desired.Levels) -> None:
        for link in links:
            if self._links.get(link.node) is link:
                link.deliver(levels[link.node])
