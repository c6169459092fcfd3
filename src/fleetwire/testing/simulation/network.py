"""The network between nodes and servers: connections that keep order, and break in every way.

Within a connection frames arrive whole and in order, as TCP gives it, or not at all. It may be
cut (both ends learn it, soon or late), be half-open (one end has gone, the other does not know),
be dead in one direction, or slow; a partition holds what was sent until it heals. Frames of an old
connection may so arrive long after a newer one was opened. `doubling` is what no TCP does:
frames arrive twice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal

from fleetwire.agent.channel import Frame, LinkClosed
from fleetwire.protocol.versions import SUBPROTOCOL
from fleetwire.testing.simulation.chance import Chance
from fleetwire.testing.simulation.loop import CURRENT, VirtualLoop

Way = Literal["up", "down"]
WINDOW: Final = 64
"""Frames under way, after which the sender has to wait."""


class Pipe:
    """One direction of a connection. What is put in comes out in order, each after its delay."""

    def __init__(self, network: Network, node: str, way: Way) -> None:
        self._network = network
        self._node = node
        self._way = way
        self._queue: deque[tuple[float, object]] = deque()
        self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.dead = False
        self.stalled = False
        self.deliver: Callable[[object], None] = _nobody

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, frame: object, *, late: float = 0.0) -> None:
        """Send something; `late` seconds more than usual."""
        if self.dead:
            return
        network = self._network
        arrival = max(self._last, network.loop.time() + network.latency() + late)
        self._last = arrival
        self._queue.append((arrival, frame))
        if isinstance(frame, str | bytes) and network.doubles():
            self._queue.append((arrival, frame))
        self.pump()

    def pump(self) -> None:
        """Deliver what is due, if the network lets it through."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = self._network.loop
        while self._queue and not self.dead and not self.stalled:
            if self._network.blocked(self._node, self._way):
                return  # the network pumps again when it heals
            due, frame = self._queue[0]
            if due > loop.time():
                self._timer = self._network.at(due, self.pump)
                return
            self._queue.popleft()
            self.deliver(frame)

    def die(self) -> None:
        """Lose all that is under way."""
        self.dead = True
        self._queue.clear()


class _Ended:
    """The last thing that comes out of a pipe: a close frame, or a break (code None)."""

    def __init__(self, code: int | None, reason: str) -> None:
        self.code = code
        self.reason = reason


class Connection:
    """One WebSocket: the agent's end is a `Channel`, the server's is ASGI."""

    def __init__(self, network: Network, node: str) -> None:
        self.node = node
        self.network = network
        self.up = Pipe(network, node, "up")
        self.down = Pipe(network, node, "down")
        self.up.deliver = self._at_server
        self.down.deliver = self._at_agent
        self._server_has: deque[dict[str, Any]] = deque()
        self._server_some = asyncio.Event()
        self._server_room = asyncio.Event()
        self._server_gone = False
        self._agent_has: list[Frame] = []
        self._agent_some = asyncio.Event()
        self._agent_room = asyncio.Event()
        self._agent_end: LinkClosed | None = None
        self.accepted = asyncio.Event()
        self.seen: Callable[[str], None] = _nobody
        self.heard: Callable[[str], None] = _nobody

    # -- the agent's end: what `agent.channel.Channel` offers --------------------------------

    async def receive(self) -> list[Frame]:
        """Return the frames that have come. Raises LinkClosed."""
        while not self._agent_has:
            if self._agent_end is not None:
                raise self._agent_end
            self._agent_some.clear()
            await self._agent_some.wait()
        frames, self._agent_has = self._agent_has, []
        return frames

    def send(self, frames: Iterable[Frame]) -> None:
        """Send frames to the server."""
        if self._dead_process():
            return
        for frame in frames:
            self.up.put(frame)

    @property
    def writable(self) -> bool:
        """Whether more may be sent now."""
        return len(self.up) < WINDOW

    async def wait_writable(self) -> None:
        """Wait until it is."""
        while not self.writable:
            self._agent_room.clear()
            await self._agent_room.wait()

    async def close(self, code: int, reason: str) -> None:
        """Close in order."""
        if not self._dead_process():
            self.up.put(_Ended(code, reason))

    def abort(self) -> None:
        """The agent drops its end: the server learns it soon, late, or never."""
        if self._dead_process():
            return
        self.leave_agent()

    def leave_agent(self) -> None:
        """The agent's end is gone; what it has sent may still be under way."""
        if self._agent_end is None:
            self._agent_end = LinkClosed(None, "the connection was dropped")
            self._agent_some.set()
        self.down.die()
        self.up.put(_Ended(None, ""), late=self.network.half_open())

    # -- the server's end: ASGI --------------------------------------------------------------

    async def asgi_receive(self) -> dict[str, Any]:
        """Return the next ASGI event."""
        while not self._server_has:
            self._server_some.clear()
            await self._server_some.wait()
        return self._server_has.popleft()

    async def asgi_send(self, message: dict[str, Any]) -> None:
        """Take an ASGI event of the server."""
        if self._dead_process() or self._server_gone:
            raise OSError("the connection is closed")
        match message["type"]:
            case "websocket.accept":
                if message["subprotocol"] != SUBPROTOCOL:
                    raise AssertionError("the subprotocol is not ours")
                self.accepted.set()
            case "websocket.send":
                frame = message.get("text")
                if frame is None:
                    raise AssertionError("the server sends no binary frames")
                self.seen(frame)
                self.down.put(frame)
                while len(self.down) >= WINDOW and not self._server_gone:
                    self._server_room.clear()
                    await self._server_room.wait()
            case "websocket.close":
                self.down.put(_Ended(message.get("code", 1000), message.get("reason", "")))
                self._server_gone = True
            case other:
                raise AssertionError(other)

    def scope(self, address: str) -> dict[str, Any]:
        """Return the ASGI scope of the connection."""
        return {
            "type": "websocket",
            "headers": [],
            "subprotocols": [SUBPROTOCOL],
            "path_params": {"node": self.node},
            "client": (address, 40_000),
        }

    def connect(self) -> None:
        """Let the server see it."""
        self._server_put({"type": "websocket.connect"})

    def lose_server(self) -> None:
        """The server's process is gone: its end is closed by the kernel."""
        self.up.die()
        self._server_gone = True
        self.down.put(_Ended(None, "the server has gone"))

    # -- the world's faults ------------------------------------------------------------------

    def cut(self) -> None:
        """Break it: what is under way is lost, and both ends learn that."""
        for pipe in (self.up, self.down):
            pipe.die()
        self._agent_over(_Ended(None, "the connection was reset"))
        self._server_over()

    def _at_server(self, frame: object) -> None:
        self._agent_room.set()
        if isinstance(frame, _Ended):
            self._server_over()
        elif isinstance(frame, str):
            self.heard(frame)
            self._server_put({"type": "websocket.receive", "text": frame})
        else:
            self._server_put({"type": "websocket.receive", "bytes": frame})

    def _at_agent(self, frame: object) -> None:
        self._server_room.set()
        if isinstance(frame, _Ended):
            self._agent_over(frame)
        elif self._agent_end is None and isinstance(frame, str | bytes):
            self._agent_has.append(frame)
            self._agent_some.set()

    def _server_put(self, event: dict[str, Any]) -> None:
        self._server_has.append(event)
        self._server_some.set()

    def _server_over(self) -> None:
        if not self._server_gone:
            self._server_gone = True
            self._server_put({"type": "websocket.disconnect", "code": 1006})
        self._server_room.set()
        self.accepted.set()

    def _agent_over(self, end: _Ended) -> None:
        if self._agent_end is None:
            self._agent_end = LinkClosed(end.code, end.reason)
        self.accepted.set()
        self._agent_some.set()
        self._agent_room.set()

    @property
    def refused(self) -> LinkClosed | None:
        """How it ended for the agent, if it did."""
        return self._agent_end

    def _dead_process(self) -> bool:
        process = CURRENT.get()
        return process is not None and not process.alive


class Network:
    """All connections, and what is broken between whom."""

    def __init__(self, loop: VirtualLoop, chance: Chance) -> None:
        self.loop = loop
        self._chance = chance
        self._broken: set[tuple[str, Way]] = set()
        self.connections: list[Connection] = []
        self.slow = 0.0
        self.doubling = 0.0
        self.doubled = 0
        self.calm = False

    def latency(self) -> float:
        """Return how long the next frame takes."""
        if self.calm:
            return 0.001
        return self._chance.delay(0.003, 0.5) + self.slow

    def half_open(self) -> float:
        """Return how much later the server learns that the agent has gone."""
        if self.calm or self._chance.odds(0.5):
            return 0.0
        return self._chance.between(0.0, 100.0)

    def doubles(self) -> bool:
        """Say whether the next frame arrives twice."""
        if self.calm or not self._chance.odds(self.doubling):
            return False
        self.doubled += 1
        return True

    def at(self, when: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        """Call back at a time, for nobody: the network outlives every process."""
        token = CURRENT.set(None)
        try:
            return self.loop.call_at(when, call)
        finally:
            CURRENT.reset(token)

    def blocked(self, node: str, way: Way) -> bool:
        """Say whether nothing passes this way now."""
        return (node, way) in self._broken

    def partition(self, node: str, ways: Iterable[Way]) -> None:
        """Let nothing through, until `heal`."""
        self._broken.update((node, way) for way in ways)

    def heal(self, node: str) -> None:
        """Let all through again."""
        self._broken -= {(node, "up"), (node, "down")}
        for connection in self.of(node):
            connection.up.stalled = connection.down.stalled = False
            connection.up.pump()
            connection.down.pump()

    def of(self, node: str) -> list[Connection]:
        """Return the connections of a node that can still carry something."""
        self.connections = [one for one in self.connections if not (one.up.dead and one.down.dead)]
        return [one for one in self.connections if one.node == node]


def _nobody(frame: object) -> None:
    raise AssertionError(f"nobody is there to take {frame!r}")
