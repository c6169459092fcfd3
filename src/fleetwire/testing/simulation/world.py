"""A world: a server, some nodes, people and faults, made from a seed and judged after every step.

    world = World(7, Plan.of(7))        under `installed()`
    story = world.run()                 raises nothing; `story.violation` says what was broken

Two phases: while people work, everything fails that can; then nothing fails any more, and within
`CALM_S` virtual seconds all must have ended and be settled.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec

from fleetwire.agent.channel import LinkClosed
from fleetwire.core.errors import FleetwireError
from fleetwire.core.ids import make_id
from fleetwire.testing.simulation.chance import Chance
from fleetwire.testing.simulation.database import CommitFate, Fates, SimulatedShell
from fleetwire.testing.simulation.faults import Faults
from fleetwire.testing.simulation.installed import Installed
from fleetwire.testing.simulation.invariants import Judge, Violation
from fleetwire.testing.simulation.ledger import Ledger, Started
from fleetwire.testing.simulation.logs import Durable
from fleetwire.testing.simulation.loop import CURRENT, Livelock, VirtualLoop
from fleetwire.testing.simulation.network import Connection, Network
from fleetwire.testing.simulation.node import BASE_US, SimulatedNode
from fleetwire.testing.simulation.people import People
from fleetwire.testing.simulation.plan import Plan, Story
from fleetwire.testing.simulation.server import (
    CAPACITY,
    LEASE_S,
    SimulatedServer,
    copy,
    discard,
    found,
)
from fleetwire.testing.simulation.system import System

CALM_S: Final = 420.0
TRACE: Final = 400
_tag = msgspec.json.Decoder(dict[str, Any])


class World:
    """See the module."""

    def __init__(self, seed: int, plan: Plan, installed: Installed, *, trace: int = TRACE) -> None:
        self.seed = seed
        self.plan = plan
        self.chance = Chance(seed)
        thread = self.chance.fork("threads")
        # What it lacks of a loop is what nobody may use here: sockets, signals, processes.
        self.loop = VirtualLoop(lambda: thread.delay(0.001, 0.3))  # type: ignore[abstract]
        self.system = System()
        self.ledger = Ledger()
        self.durable = Durable()
        self.network = Network(self.loop, self.chance.fork("network"))
        self.network.doubling = plan.doubling
        self.counted: Counter[str] = Counter()
        self.server: SimulatedServer | None = None
        self.server_skew_us = 0
        self.calm = False
        self.violation: Violation | None = None
        self._trace: deque[str] = deque(maxlen=trace)
        self._made = self.chance.fork("ids")
        self._commits = self.chance.fork("commits")
        self._servers = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._done = False
        self._installed = installed
        installed.world = self
        installed.set_credit(plan.credit)
        self.founded = found(plan.nodes)
        self._path = copy(self.founded)
        self.shell = SimulatedShell(self._path)
        self.judge = Judge(
            self.shell,
            self.durable,
            self.ledger,
            lease_s=LEASE_S,
            clock=lambda: BASE_US + round(self.loop.time() * 1e6),
        )
        self.nodes = [self._node(number) for number in range(plan.nodes)]
        self.names = tuple(node.name for node in self.nodes)
        self.people = People(self)
        self.faults = Faults(self)

    def _node(self, number: int) -> SimulatedNode:
        identity = self.founded.nodes[number]
        return SimulatedNode(
            identity.name,
            identity,
            capacity=CAPACITY,
            loop=self.loop,
            system=self.system,
            ledger=self.ledger,
            chance=self.chance.fork(identity.name),
            noted=lambda what: self.note(f"{identity.name}: {what}"),
            began=self._began,
        )

    # -- running -----------------------------------------------------------------------------

    def run(self) -> Story:
        """Run the world to its end."""
        return self._told(self._run)

    def begin(self) -> None:
        """Start everything, for who drives the world step by step: then `let_pass`, `finish`."""
        self.start_server()
        for node in self.nodes:
            node.start_agent()

    def let_pass(self, seconds: float) -> None:
        """Let virtual time pass. A violation is kept for `finish`."""
        until = self.loop.time() + seconds
        self.loop.run(lambda: self.violation is not None, limit_s=until)

    def finish(self) -> Story:
        """End all faults, wait until everything has ended, and judge."""
        return self._told(self._finish)

    def _finish(self) -> None:
        self.calm = self.network.calm = True
        self.spawn(self.faults.mend())
        self._wait_for_the_end()

    def _told(self, run: Callable[[], None]) -> Story:
        try:
            run()
        except Violation as violation:
            self.violation = self.violation or violation
        except Livelock as error:
            self.violation = self.violation or Violation("liveness", str(error))
        finally:
            self._end()
        said = str(self.violation) if self.violation else None
        if said is not None:
            self.note(f"VIOLATION {said}")
        return Story(
            self.seed,
            said,
            self.loop.steps,
            self.loop.time(),
            self.counted,
            sum(map(len, self.ledger.starts.values())),
            tuple(self._trace),
        )

    def _run(self) -> None:
        self.begin()
        self.spawn(self._live())
        self._drive(lambda: self._done, self.plan.busy_s + 600.0)
        if not self._done:
            raise Violation("liveness", "people got no answer in 600 s without faults")
        self._wait_for_the_end()

    def _wait_for_the_end(self) -> None:
        self.note("waiting for everything to end")
        self._drive(self._all_over, self.loop.time() + CALM_S)
        left = self.judge.unfinished()
        if left or not self._all_over():
            raise Violation("liveness", f"not over after {CALM_S:g} s: {'; '.join(left)}")
        self.judge.look()
        self.judge.close_the_books(self.people.runs)

    def _drive(self, until: Callable[[], bool], limit_s: float) -> None:
        self.loop.run(lambda: self.violation is not None or until(), limit_s=limit_s)
        if self.violation is None and self.loop.failures:
            raise Violation("exception", self.loop.failures[0])
        if self.violation is not None:
            raise self.violation

    async def _live(self) -> None:
        """People and faults, and then calm."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.people.submit_runs(self.plan.runs, self.plan.busy_s * 0.8))
            group.create_task(self._fail_and_mend())
        self._done = True

    async def _fail_and_mend(self) -> None:
        try:
            async with asyncio.timeout(self.plan.busy_s):
                await self.faults.run()
        except TimeoutError:
            self.note("no more faults from here on")
        self.calm = self.network.calm = True
        await self.faults.mend()

    def _all_over(self) -> bool:
        return (
            self.people.waiting == 0
            and not self.judge.unfinished()
            and not any(self.ledger.alive(a) for a in self.ledger.starts)
        )

    def _end(self) -> None:
        """Let every process unwind, and give everything back."""
        self.calm = True
        for node in self.nodes:
            for process in [node.agent, node.spawner, *(p for _, p in node.shims.values())]:
                if process is not None:
                    process.kill()
        if self.server is not None:
            self.server.kill()
        for task in sorted(self._tasks, key=asyncio.Task.get_name):
            task.cancel()
        with contextlib.suppress(Livelock):
            self.loop.run(lambda: True, limit_s=self.loop.time())
        self.shell.dispose()
        discard(self._path)
        self._installed.world = None

    def spawn(self, work: Coroutine[Any, Any, object]) -> None:
        """Run something that belongs to no process; what it raises fails the world."""

        async def run() -> None:
            try:
                await work
            except Violation as violation:
                self.broken(violation)
            except Exception as error:  # noqa: BLE001 - it goes to who waits
                self.loop.failures.append(f"the world: {error!r}")
                self.broken(Violation("exception", repr(error)))

        task = self.loop.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- what the rooms tell -----------------------------------------------------------------

    def note(self, what: str) -> None:
        """Write a line of the trace."""
        self._trace.append(f"{self.loop.time():9.3f}  {what}")

    def broken(self, violation: Violation) -> None:
        """Keep the first violation; it ends the world."""
        if self.violation is None:
            self.violation = violation

    def judged(self, look: Callable[[], object]) -> None:
        """Have the judge look; a violation ends the world, and not the process that showed it."""
        if self.violation is None:
            try:
                look()
            except Violation as violation:
                self.broken(violation)

    def heard(self, level: str, event: dict[str, Any]) -> None:
        """Take a line of the server's log. An error that nobody foresaw is a violation."""
        process = CURRENT.get()
        if process is not None and not process.alive:
            return
        error = event.get("exc_info")
        self.note(f"server {level}: {event.get('event')} {event.get('error', '')} {error or ''}")
        if level == "error" and not _foreseen(error):
            self.broken(Violation("exception", f"{event.get('event')}: {error!r} {event}"))

    def _heard(self, node: str, frame: str) -> None:
        if frame.startswith(('{"t":"heartbeat"', '{"t":"hello"')):
            self.judge.heard(node, self.loop.time())

    def start_decided(self, node: SimulatedNode, attempt: str, admin: str) -> None:
        """Take an agent's decision to start an attempt."""
        self.judged(lambda: self.judge.start_decided(node.id, attempt, admin, self.loop.time()))

    def _began(self, started: Started, node: SimulatedNode) -> None:
        self.judged(lambda: self.judge.started(started, node.id))

    def new_id(self) -> str:
        """Return a new id, which the judge will look for."""
        made = make_id(BASE_US + round(self.loop.time() * 1e6), self._made.data(10))
        self.judge.candidates.append(made)
        return made

    def seen(self, frame: str) -> None:
        """Look at a frame that the server sends."""
        if frame.startswith('{"t":"durable"'):
            said = _tag.decode(frame)
            self.judged(lambda: self.judge.durable_said(said["attempt"], said["length"]))
        elif frame.startswith('{"t":"sealed"'):
            ids = _tag.decode(frame)["attempts"]
            self.judged(lambda: self.judge.sealed_said(ids))

    # -- the server --------------------------------------------------------------------------

    def server_wall(self) -> int:
        """Return the server's wall time in microseconds since 1970."""
        return BASE_US + self.server_skew_us + round(self.loop.time() * 1_000_000)

    def start_server(self) -> None:
        """Start a server, if none runs."""
        if self.server is not None:
            return
        self._servers += 1
        self.note(f"server {self._servers} starts")
        self.server = SimulatedServer(
            self._servers,
            self.founded,
            self.shell,
            self.durable,
            loop=self.loop,
            chance=self.chance.fork(f"server {self._servers}"),
            clock=self.server_wall,
            ids=self.new_id,
            fates=lambda which: Fates(lambda: self._fate(which), self.kill_server),
            committed=lambda: self.judged(self.judge.look),
            stored=lambda address, offset, data: self.judged(
                lambda: self.judge.stored(address.attempt, offset, data)
            ),
            drop_nudges=self.plan.drop_nudges,
            commit_s=self.plan.commit_s,
        )
        self.server.database.watch(
            lambda what: self.broken(Violation("durable", f"{what} leaves before the COMMIT"))
        )

    def kill_server(self) -> None:
        """Kill the server; its connections end, it starts again some time later."""
        server = self.server
        if server is None:
            return
        self.note("server killed")
        self.server = None
        server.kill()
        for node in self.nodes:
            for connection in self.network.of(node.id):
                connection.lose_server()
        self.spawn(self._restart())

    async def _restart(self) -> None:
        await asyncio.sleep(0.1 if self.calm else self.chance.delay(0.5, 20.0))
        self.start_server()

    def _fate(self, which: str) -> CommitFate:
        if self.calm or not self._commits.odds(self.plan.commit_faults):
            return "done"
        fate = self._commits.pick(self.plan.fates)
        self.counted[f"commit {fate}"] += 1
        self.note(f"commit of the {which}: {fate}")
        return fate

    # -- the way to it -----------------------------------------------------------------------

    async def dial(self, node: str, *, timeout_s: float) -> Connection:
        """Open a connection, as `agent.channel.open_channel` does."""
        network = self.network
        async with asyncio.timeout(timeout_s):
            await asyncio.sleep(network.latency())
            if network.blocked(node, "up") or network.blocked(node, "down"):
                await asyncio.sleep(2 * timeout_s)
            serving = self.server
            if serving is None:
                raise ConnectionRefusedError(111, "Connection refused")
            connection = Connection(network, node)
            connection.seen = self.seen
            connection.heard = lambda frame: self._heard(node, frame)
            network.connections.append(connection)
            connection.connect()
            _ = serving.process.spawn(self.loop, _serve(serving, connection))
            try:
                await connection.accepted.wait()
            except BaseException:
                connection.abort()
                raise
            if isinstance(connection.refused, LinkClosed):
                raise connection.refused
            return connection


async def _serve(server: SimulatedServer, connection: Connection) -> None:
    """As a web server does: a peer that has gone is written to its log, and that is all."""
    with contextlib.suppress(OSError):
        await server.gateway(
            connection.scope("192.0.2.1"), connection.asgi_receive, connection.asgi_send
        )


def _foreseen(error: object) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(_foreseen, error.exceptions))
    return isinstance(error, FleetwireError)
