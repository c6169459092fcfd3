"""A simulated node: a disk, a boot, and the processes on it.

The agent's own parts (roster, uploader, link, starter, cleaner, lease) run on it as `agent.app`
puts them together; the spawner and the shims are simulated (`shim.py`). Killing the agent leaves
tasks alone; a reboot ends everything and loses what was not durable.
"""

from __future__ import annotations

import asyncio
import contextlib
import posixpath
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from fleetwire.agent.cleaner import Cleaner
from fleetwire.agent.config import AgentConfig
from fleetwire.agent.folders import Places
from fleetwire.agent.identity import Identity
from fleetwire.agent.lease import Lease
from fleetwire.agent.link import Link, Parts
from fleetwire.agent.policy import LocalPolicy, Standing
from fleetwire.agent.protection import Protection
from fleetwire.agent.reserve import Reserve
from fleetwire.agent.roster import Roster
from fleetwire.agent.starter import Starter
from fleetwire.agent.steps import StepBook
from fleetwire.agent.stops import Stops
from fleetwire.agent.vault import Vault
from fleetwire.core.absences import Life
from fleetwire.testing.simulation.chance import Chance
from fleetwire.testing.simulation.disk import Disk, Folder
from fleetwire.testing.simulation.ledger import Ledger, Started
from fleetwire.testing.simulation.loop import CURRENT, Process, VirtualLoop
from fleetwire.testing.simulation.shim import SimulatedShim, SimulatedTask, judge
from fleetwire.testing.simulation.system import System

BASE_US: Final = 1_800_000_000_000_000
"""Wall time when a world begins, microseconds since 1970."""
FREE_BYTES: Final = 1 << 30
QUOTA_BYTES: Final = 24 * 1024


class NodeProcess(Process):
    """A process of a node."""

    def __init__(self, name: str, node: SimulatedNode) -> None:
        super().__init__(f"{node.name} {name}")
        self.node = node


class _Book:
    """An agent's word on itself that needs no files."""

    def __init__(self, life: Life) -> None:
        self._life = life

    def life(self) -> Life:
        """Return what the next hello says."""
        return self._life

    def look(self) -> None:
        """Nothing is killed for want of memory here."""


class _SilentStatus:
    """`agent.status.Status`, for nobody to read."""

    def say(self, part: str, sentence: str) -> None:
        """Say nothing."""


class _NoPolicy(LocalPolicy):
    """Whatever stands in this machine's own file is nothing to a simulated node."""

    def look(self) -> Standing:
        """Nothing is denied."""
        return Standing("absent")


class _NoReserve(Reserve):
    """A reserve that is used up: the disk's `full` is as full as it gets."""

    def __init__(self) -> None:
        pass

    def take(self) -> None:
        """Take nothing."""

    @contextlib.contextmanager
    def given(self) -> Iterator[None]:
        """Give nothing."""
        yield


class _Usage:
    def __init__(self, free: int) -> None:
        self.free = free
        self.total = FREE_BYTES


class SimulatedNode:
    """See the module. `noted` is told of what happens, for the trace and the invariants."""

    def __init__(
        self,
        name: str,
        identity: Identity,
        *,
        capacity: int,
        loop: VirtualLoop,
        system: System,
        ledger: Ledger,
        chance: Chance,
        noted: Callable[[str], None],
        began: Callable[[Started, SimulatedNode], None],
    ) -> None:
        self.name = name
        self.identity = identity
        self.loop = loop
        self.system = system
        self.chance = chance
        self.disk = Disk()
        self.places = Places(f"/{name}")
        self.shims: dict[str, tuple[SimulatedShim, NodeProcess]] = {}
        self.tasks: list[SimulatedTask] = []
        self.agent: NodeProcess | None = None
        self.roster: Roster | None = None
        self.skew_us = 0
        self.spawner: NodeProcess | None = None
        self._capacity = capacity
        self._ledger = ledger
        self._noted = noted
        self._began = began
        self._boots = 1
        self._line: SpawnerLine | None = None
        system.disks[name] = self.disk
        self.places.make()
        self.disk.root.sync()

    @property
    def id(self) -> str:
        """The node's id."""
        return self.identity.node

    @property
    def boot_id(self) -> str:
        """An id of this boot."""
        return f"{self.name}-boot-{self._boots}"

    def wall(self) -> int:
        """Return the node's wall time in microseconds since 1970."""
        return BASE_US + self.skew_us + round(self.loop.time() * 1_000_000)

    # -- its life ----------------------------------------------------------------------------

    def start_agent(self) -> None:
        """Start the agent, if it does not run."""
        if self.agent is None or not self.agent.alive:
            self.agent = NodeProcess("agent", self)
            _ = self.agent.spawn(self.loop, self._agent(self.agent))
            self._noted("agent starts")

    def kill_agent(self) -> None:
        """Kill the agent. Its attempts live on."""
        if self.agent is not None and self.agent.alive:
            self._noted("agent killed")
            self._end(self.agent)
            if self.roster is not None:
                self._unwatch()

    def kill_spawner(self) -> None:
        """Kill the spawner; the agent starts another one when it notices."""
        if self.spawner is not None and self.spawner.alive:
            self._noted("spawner killed")
            self._end(self.spawner)
            if self._line is not None:
                self._line.lost()

    def kill_shim(self, attempt: str) -> None:
        """Kill a shim: its task lives on until somebody ends it."""
        shim, process = self.shims.pop(attempt)
        self._noted(f"shim of {attempt[-6:]} killed")
        shim.listens = False
        self._end(process)
        self._judge_later(attempt)

    def lose_power(self) -> None:
        """End everything, and lose what is not durable."""
        self._noted("power lost")
        for process in [self.agent, self.spawner, *(one for _, one in self.shims.values())]:
            if process is not None and process.alive:
                self._end(process)
        self.shims.clear()
        for task in self.tasks:
            task.started.power_lost = True
            task.end(self.loop.time(), signal=9)
        self.tasks.clear()
        self.system.unplug(self.disk)
        self.disk.lose_power(self.chance)
        self._boots += 1

    def _end(self, process: NodeProcess) -> None:
        process.kill()
        self.system.release(process)

    def _unwatch(self) -> None:
        spools = self.disk.root.names.get("spool")
        if isinstance(spools, Folder):
            for inode in spools.names.values():
                if isinstance(inode, Folder):
                    inode.watched = None

    async def _agent(self, process: NodeProcess) -> None:
        """What `agent.app.run` does."""
        loop, status = self.loop, _SilentStatus()
        config = AgentConfig(
            server="http://server",
            state=self.places.state,
            name=self.name,
            max_concurrent=self._capacity,
            spool_quota_bytes=QUOTA_BYTES,
            backoff_max_s=10.0,
        )
        self.places.make()
        lease = Lease(loop.time, self.wall)
        cleaner = Cleaner(
            self.places,
            keep_s=config.keep_sealed_s,
            keep_bytes=config.keep_sealed_bytes,
            clock=loop.time,
            wall=self.wall,
            status=status,  # type: ignore[arg-type]
        )
        policy, around = _NoPolicy(), Protection(False, "none", {}, "", False)
        line = self._line = SpawnerLine(self, process)
        roster = self.roster = Roster(
            self.places,
            capacity=config.max_concurrent,
            starter=Starter(
                config,
                self.identity,
                self.places,
                lease.server_now,
                boot_id=self.boot_id,
                vault=Vault(self.places.state, ()),
                policy=policy,
                around=around,
            ),
            stops=Stops(self.identity),
            policy=policy,
            spawner=line,  # type: ignore[arg-type]
            cleaner=cleaner,
            lease=lease,
            status=status,  # type: ignore[arg-type]
            wall=self.wall,
            reserve=_NoReserve(),
        )
        uniform = self.chance.fork(f"agent {loop.time()}").uniform
        book = _Book(Life(agent=f"{self.name} at {loop.time():.6f}"))
        random_marks = self.chance.fork(f"marks {loop.time()}")
        marks = StepBook(self.places.state, lambda: random_marks.data(16).hex())
        silent: Any = status
        pages: Any = book
        parts = Parts(
            config,
            self.identity,
            roster,
            lease,
            silent,
            pages,
            policy,
            around,
            loop.time,
            self.wall,
            uniform,
        )
        link = Link(parts._replace(steps=marks))
        watch = _Watch(self, process, roster.written)
        roster.watch_add, roster.watch_remove = watch.add, watch.remove
        roster.scan()
        async with asyncio.TaskGroup() as group:
            roster.begin(group)
            group.create_task(link.run())
            group.create_task(line.run())
            group.create_task(cleaner.run())

    # -- what its processes ask of it --------------------------------------------------------

    def fork_shim(self, attempt: str) -> None:
        """Fork a shim for an attempt, as the spawner does."""
        if attempt in self.shims:
            return
        process = NodeProcess(f"shim {attempt[-6:]}", self)
        shim = SimulatedShim(self, attempt)
        self.shims[attempt] = (shim, process)
        task = process.spawn(self.loop, shim.live())
        task.add_done_callback(lambda _: self._shim_ended(shim, process))

    def _shim_ended(self, shim: SimulatedShim, process: NodeProcess) -> None:
        if not process.alive:
            return
        self._end(process)
        self.shims.pop(shim.attempt, None)
        self._judge_later(shim.attempt)

    def _judge_later(self, attempt: str) -> None:
        spawner = self.spawner
        if spawner is None or not spawner.alive:
            return
        token = CURRENT.set(spawner)
        try:
            self.loop.call_later(self.chance.delay(0.005, 0.5), self._judge, attempt)
        finally:
            CURRENT.reset(token)

    def _judge(self, attempt: str) -> None:
        try:
            judge(self, attempt)
        except OSError:
            return  # the agent judges the folder again when it looks at it

    def started(self, attempt: str, epoch: int) -> Started:
        """Note a real start."""
        started = self._ledger.start(attempt, epoch, self.name, self.loop.time())
        self._noted(f"task of {attempt[-6:]} starts, epoch {epoch}")
        self._began(started, self)
        return started

    def survivors(self, attempt: str) -> list[SimulatedTask]:
        """Return the tasks of an attempt that live."""
        return [one for one in self.tasks if one.lives and one.started.attempt == attempt]

    def kill_each(self, processes: Iterable[SimulatedTask]) -> None:
        """KILL these."""
        for one in processes:
            one.end(self.loop.time(), signal=9)

    def ask_shim(self, folder: str, request: dict[str, Any]) -> dict[str, Any]:
        """Ask an attempt's shim. Raises ConnectionError."""
        found = self.shims.get(posixpath.basename(folder))
        if found is None:
            raise ConnectionRefusedError("no shim listens")
        return found[0].answer(request)

    def disk_usage(self, path: str) -> _Usage:
        """Return the free disk."""
        del path
        return _Usage(0 if self.disk.full else FREE_BYTES)


class SpawnerLine:
    """`agent.spawner.SpawnerLine`, to a simulated spawner that outlives the agent."""

    def __init__(self, node: SimulatedNode, agent: NodeProcess) -> None:
        self.answered: Callable[[str, str | None], None] = _nobody
        self._node = node
        self._agent = agent
        self._ready = False
        self._waiting: list[str] = []
        self._asked: list[str] = []
        self._gone = asyncio.Event()

    def start(self, attempts: list[str]) -> None:
        """Ask for a shim for each of these."""
        if not self._ready:
            self._waiting += attempts
            return
        spawner = self._node.spawner
        for attempt in attempts:
            self._asked.append(attempt)
            token = CURRENT.set(spawner)
            try:
                self._node.loop.call_later(self._delay(), self._fork, attempt)
            finally:
                CURRENT.reset(token)

    async def run(self) -> None:
        """Hold a spawner, and start another when it goes."""
        node = self._node
        while True:
            await asyncio.sleep(self._delay())
            if node.spawner is None or not node.spawner.alive:
                node.spawner = NodeProcess("spawner", node)
            self._gone.clear()
            self._ready = True
            waiting, self._waiting = self._waiting, []
            self.start(waiting)
            await self._gone.wait()
            await asyncio.sleep(0.05)

    def lost(self) -> None:
        """The spawner has gone: give back what got no answer."""
        self._ready = False
        self._gone.set()
        asked, self._asked = self._asked, []
        for attempt in asked:
            self._later(attempt, "")

    def _fork(self, attempt: str) -> None:
        self._node.fork_shim(attempt)
        if attempt in self._asked:
            self._asked.remove(attempt)
            self._later(attempt, None)

    def _later(self, attempt: str, error: str | None) -> None:
        token = CURRENT.set(self._agent)
        try:
            self._node.loop.call_later(self._delay(), self.answered, attempt, error)
        finally:
            CURRENT.reset(token)

    def _delay(self) -> float:
        return self._node.chance.delay(0.002, 0.3)


class _Watch:
    """`agent.watch.Watch`: tells of what is written, soon; now and then it loses a word."""

    def __init__(
        self, node: SimulatedNode, agent: NodeProcess, written: Callable[[str, str], None]
    ) -> None:
        self._node = node
        self._agent = agent
        self._written = written
        self._told: set[tuple[str, str]] = set()

    def add(self, attempt: str, path: str) -> None:
        """Look at this folder from now on."""
        self._node.system.watch(path, lambda name: self._tell(attempt, name))

    def remove(self, attempt: str) -> None:
        """Look at it no more."""
        self._node.system.watch(self._node.places.spool(attempt), None)

    def _tell(self, attempt: str, name: str) -> None:
        if (attempt, name) in self._told or self._node.chance.odds(0.01):
            return
        self._told.add((attempt, name))
        token = CURRENT.set(self._agent)
        try:
            self._node.loop.call_later(0.0005, self._now, attempt, name)
        finally:
            CURRENT.reset(token)

    def _now(self, attempt: str, name: str) -> None:
        self._told.discard((attempt, name))
        self._written(attempt, name)


def _nobody(attempt: str, error: str | None) -> None:
    raise AssertionError(f"nobody listens for {attempt}: {error}")
