"""All simulated agents of one process: who dials when, what is counted, when all links break.

Reconnecting follows the real agent's rule (`agent.backoff`, P9): what a storm looks like here is
what a server will see from a fleet.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import msgspec
from websockets.uri import WebSocketURI

from fleetwire.agent import backoff
from fleetwire.agent.channel import dialled_name
from fleetwire.protocol import messages
from fleetwire.swarm.behaviour import Behaviour, Failures, Output
from fleetwire.swarm.channel import Channel
from fleetwire.swarm.errors import SwarmError
from fleetwire.swarm.identities import Identity
from fleetwire.swarm.node import SimulatedNode

DIAL_S: Final = 10.0
STEADY_S: Final = 5.0
BACKOFF_FIRST_S: Final = 1.0
BACKOFF_MOST_S: Final = 60.0
LEAVE_S: Final = 2.0


class Chances(NamedTuple):
    """What the composition root gives: `wall` is microseconds since 1970, `chance` uniform in
    [0, 1), `nonce` 32 characters of chance.
    """

    wall: Callable[[], int]
    chance: Callable[[], float]
    nonce: Callable[[], str]


class Counts(msgspec.Struct):
    """What has happened so far. `online`: linked, and told their level; `refused`: links that
    the server ended with a close code; `last` is its reason.
    """

    agents: int = 0
    online: int = 0
    running: int = 0
    ended: int = 0
    failed: int = 0
    connects: int = 0
    reconnects: int = 0
    broken: int = 0
    refused: int = 0
    last: str = ""


class Fleet:
    """See the module. Made inside the event loop that runs it."""

    def __init__(
        self,
        server: str,
        cluster: str,
        identities: Sequence[Identity],
        behaviour: Behaviour,
        chances: Chances,
    ) -> None:
        self.cluster = cluster
        self.server_name = dialled_name(server)
        self.boot_id = chances.nonce()
        # The spool is this process's memory: each start is a new state directory (5.3).
        self.incarnation = chances.nonce()
        self.behaviour = behaviour
        self.output = Output(behaviour.output_bytes)
        self.loop = asyncio.get_running_loop()
        self.counts = Counts(agents=len(identities))
        self.wall = chances.wall
        self.nonce = chances.nonce
        self._chance = chances.chance
        self._failures = Failures(behaviour.fail_share)
        self._server = server
        self._address: tuple[str, int] = ("", 0)
        self._group: asyncio.TaskGroup | None = None
        self._leaving = False
        self._gone = asyncio.Event()
        self._nodes = [SimulatedNode(one, self) for one in identities]
        self._linked = 0

    async def run(self, leaving: asyncio.Event, *, spread_s: float = 0.0) -> None:
        """Live until `leaving` is set, then close every link. First dials are spread over
        `spread_s` seconds. Raises SwarmError where the server's name is none.
        """
        self._address = await self._resolve()
        async with asyncio.TaskGroup() as group:
            self._group = group
            for number, node in enumerate(self._nodes):
                self.loop.call_later(spread_s * number / len(self._nodes), self._dial_soon, node)
            storms = group.create_task(self._storms())
            await leaving.wait()
            self._leaving = True
            storms.cancel()
            for node in self._nodes:
                node.leave()
            try:
                async with asyncio.timeout(LEAVE_S):
                    while self._linked:
                        self._gone.clear()
                        await self._gone.wait()
            except TimeoutError:
                self.break_all()

    def break_all(self) -> None:
        """Drop every link at once, as a network does."""
        for node in self._nodes:
            if node.channel is not None:
                node.channel.abort()

    # -- what nodes say (node.Host) ----------------------------------------------------------

    def fails(self) -> bool:
        """Whether the next task fails."""
        failed = self._failures.next()
        self.counts.failed += failed
        return failed

    def connected(self) -> None:
        """A node has a connection."""
        self._linked += 1

    def started(self) -> None:
        """A task has begun."""
        self.counts.running += 1

    def finished(self, *, failed: bool) -> None:  # noqa: ARG002 (counted in `fails`)
        """A task has ended."""
        self.counts.running -= 1
        self.counts.ended += 1

    def came_online(self, node: SimulatedNode) -> None:
        """A node's record and its server's agree."""
        self.counts.online += 1
        self.counts.connects += 1
        if node.seen:
            self.counts.reconnects += 1
        node.seen = True

    def went_offline(self, node: SimulatedNode, code: int | None, reason: str) -> None:
        """A link is over: dial again, by the real agent's rule."""
        self._linked -= 1
        self._gone.set()
        self.counts.online -= node.online
        if code is None:
            self.counts.broken += 1
        else:
            self.counts.refused += 1
            self.counts.last = f"{code} {reason}".rstrip()
        welcomed, node.opened_at = node.opened_at, None
        if welcomed is not None and self.loop.time() - welcomed >= STEADY_S:
            node.failures = 0
        self._dial_later(node, code, reason)

    # -- dialling ----------------------------------------------------------------------------

    def _dial_later(self, node: SimulatedNode, code: int | None, reason: str) -> None:
        if self._leaving:
            return
        node.failures += 1
        self.loop.call_later(self._wait_s(node.failures, code, reason), self._dial_soon, node)

    def _wait_s(self, failures: int, code: int | None, reason: str) -> float:
        asked = backoff.asked_delay_s(reason, self._chance)
        if code == messages.CLOSE_LATER and asked is not None:
            return asked
        if code in backoff.HOPELESS:
            return backoff.slow_delay_s(self._chance)
        return backoff.delay_s(
            failures, initial_s=BACKOFF_FIRST_S, most_s=BACKOFF_MOST_S, chance=self._chance
        )

    def _dial_soon(self, node: SimulatedNode) -> None:
        if self._group is not None and not self._leaving:
            self._group.create_task(self._dial(node))

    async def _dial(self, node: SimulatedNode) -> None:
        parts = urlsplit(self._server)
        secure = parts.scheme == "https"
        path = f"{parts.path.rstrip('/')}/ws/agent/{node.identity.node}"
        uri = WebSocketURI(secure, parts.hostname or "", self._address[1], path, "")
        host, port = self._address
        channel = node.channel = Channel(uri, node)
        try:
            async with asyncio.timeout(DIAL_S):
                await self.loop.create_connection(
                    lambda: channel,
                    host,
                    port,
                    ssl=_context() if secure else None,
                    server_hostname=parts.hostname if secure else None,
                )
        except (OSError, TimeoutError) as error:
            if channel.connected:
                return  # it is told by `went_offline` that it is not for long
            node.channel = None
            self.counts.broken += 1
            self.counts.last = str(error) or "no answer"
            self._dial_later(node, None, "")
            return
        if self._leaving:
            node.leave()

    async def _resolve(self) -> tuple[str, int]:
        """Return one address of the server: asked once, for all."""
        parts = urlsplit(self._server)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            found = await self.loop.getaddrinfo(parts.hostname or "", port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise SwarmError(
                f"The server's name {parts.hostname!r} has no address: {error.strerror}.",
                hint="Check the URL that you logged in to.",
            ) from error
        host, number = found[0][4][:2]
        return str(host), int(number)

    async def _storms(self) -> None:
        while self.behaviour.storm_s:
            await asyncio.sleep(self.behaviour.storm_s)
            self.break_all()


def _context() -> ssl.SSLContext:
    return ssl.create_default_context()
