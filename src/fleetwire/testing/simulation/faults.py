"""What fails in a world, when, and how it is mended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from fleetwire.testing.simulation.loop import CURRENT, ProcessKilled
from fleetwire.testing.simulation.network import Connection, Way
from fleetwire.testing.simulation.node import NodeProcess, SimulatedNode
from fleetwire.testing.simulation.restore import Backup

if TYPE_CHECKING:
    from fleetwire.testing.simulation.world import World

WAYS: Final[tuple[tuple[Way, ...], ...]] = (("up", "down"), ("up",), ("down",))


class Faults:
    """Chooses a fault every now and then, of the kinds that the plan allows."""

    KINDS: Final = frozenset(
        {
            "cut", "drop", "stall", "partition", "slow", "kill server", "freeze server",
            "kill agent", "freeze agent", "kill shim", "kill spawner", "lose power", "full disk",
            "jump node clock", "jump server clock", "crash agent at write", "crash shim at write",
            "lose power at write", "drain",
        }
    )  # fmt: skip

    def __init__(self, world: World) -> None:
        self._world = world
        self._chance = world.chance.fork("faults")
        self._mended: dict[str, Callable[[], None]] = {}
        self._backup: Backup | None = None

    async def run(self) -> None:
        """Fail for ever; cancelled when the time of faults is over."""
        world = self._world
        kinds = sorted(world.plan.faults)
        if world.plan.restores:
            kinds.append("restore")
        if not kinds:
            await asyncio.sleep(world.plan.busy_s + 1.0)
        while True:
            await asyncio.sleep(self._chance.between(0.0, 2 * world.plan.pause_s))
            kind = self._chance.pick(kinds)
            node = self._chance.pick(world.nodes)
            self.do(kind, node)

    async def mend(self) -> None:
        """End every fault that lasts."""
        world = self._world
        for node in world.nodes:
            node.disk.wrote = _allowed
            node.disk.full = False
            world.network.heal(node.id)
        world.network.slow = 0.0
        for mend in list(self._mended.values()):
            mend()
        world.start_server()
        for node in world.nodes:
            node.start_agent()

    def do(self, kind: str, node: SimulatedNode) -> None:
        """Let a fault of this kind happen, where it can now."""
        if self._do(kind, node):
            self._world.counted[kind] += 1

    def _do(self, kind: str, node: SimulatedNode) -> bool:  # noqa: C901, PLR0912 - a list of cases
        world, chance = self._world, self._chance
        match kind:
            case "cut" | "drop" | "stall":
                return self._break(kind, node)
            case "partition":
                ways = chance.pick(WAYS)
                world.note(f"{node.name}: partition of {' and '.join(ways)}")
                world.network.partition(node.id, ways)
                self._for(chance.pick((0.5, 3.0, 25.0)), f"heal {node.name}",
                          lambda: world.network.heal(node.id))  # fmt: skip
            case "slow":
                world.network.slow = chance.between(0.05, 1.5)
                self._for(5.0, "slow", lambda: setattr(world.network, "slow", 0.0))
            case "kill server":
                if world.server is None:
                    return False
                world.kill_server()
            case "freeze server":
                server = world.server
                if server is None:
                    return False
                world.note("server stopped")
                server.process.freeze()
                self._for(chance.pick((0.5, 4.0, 25.0)), f"thaw {server.process.name}",
                          lambda: server.process.thaw(world.loop))  # fmt: skip
            case "kill agent":
                node.kill_agent()
                self._for(chance.delay(0.3, 20.0), f"start {node.name}", node.start_agent)
            case "freeze agent":
                return self._freeze_agent(node)
            case "kill shim":
                if not node.shims:
                    return False
                node.kill_shim(chance.pick(sorted(node.shims)))
            case "kill spawner":
                node.kill_spawner()
            case "lose power":
                self._lose_power(node)
            case "full disk":
                world.note(f"{node.name}: its disk is full")
                node.disk.full = True
                self._for(chance.between(0.5, 8.0), f"room {node.name}",
                          lambda: setattr(node.disk, "full", False))  # fmt: skip
            case "jump node clock":
                node.skew_us += chance.whole(-7_200_000_000, 7_200_000_000)
            case "jump server clock":
                world.server_skew_us += chance.whole(-3_000_000, 3_000_000)
            case "crash agent at write" | "crash shim at write" | "lose power at write":
                self._trip(kind, node, chance.whole(0, 40))
            case "restore":
                return self._restore()
            case "drain":
                world.spawn(world.people.drain_and_resume(node.id, chance.between(0.5, 10.0)))
            case _:
                raise AssertionError(kind)
        return True

    def _break(self, kind: str, node: SimulatedNode) -> bool:
        world = self._world
        open_: list[Connection] = world.network.of(node.id)
        if not open_:
            return False
        connection = open_[-1]
        world.note(f"{node.name}: connection {kind}")
        if kind == "cut":
            connection.cut()
        elif kind == "drop":
            connection.leave_agent()
        else:
            pipe = connection.up if self._chance.odds(0.5) else connection.down
            pipe.stalled = True
        return True

    def _restore(self) -> bool:
        """Take a backup, or put the one that there is back."""
        world = self._world
        backup = self._backup
        if backup is None:
            self._backup = backup = Backup(world)
            self._for(self._chance.between(0.0, 1.0), "the backup's logs", backup.take_logs)
            return True
        if not backup.is_whole:
            return False
        self._backup = None
        backup.put_back()
        return True

    def _freeze_agent(self, node: SimulatedNode) -> bool:
        agent = node.agent
        if agent is None or not agent.alive:
            return False
        self._world.note(f"{node.name}: agent stopped")
        agent.freeze()
        self._for(
            self._chance.pick((0.5, 5.0, 25.0)), f"thaw {agent.name}",
            lambda: agent.thaw(self._world.loop),
        )  # fmt: skip
        return True

    def _lose_power(self, node: SimulatedNode) -> None:
        node.lose_power()
        for connection in self._world.network.of(node.id):
            connection.leave_agent()
        self._for(self._chance.delay(1.0, 40.0), f"start {node.name}", node.start_agent)

    def _trip(self, kind: str, node: SimulatedNode, count: int) -> None:
        """Crash at the count-th change of the disk from now on."""
        left = count

        def wrote(what: str) -> None:
            nonlocal left
            process = CURRENT.get()
            if not isinstance(process, NodeProcess) or process.node is not node:
                return
            is_shim = " shim " in process.name
            if kind != "lose power at write" and is_shim != (kind == "crash shim at write"):
                return
            left -= 1
            if left >= 0:
                return
            node.disk.wrote = _allowed
            self._world.note(f"{process.name}: {kind}: before {what}")
            if kind == "lose power at write":
                self._lose_power(node)
            elif is_shim:
                attempt = next(a for a, (_, p) in node.shims.items() if p is process)
                node.kill_shim(attempt)
            elif process is node.agent:
                node.kill_agent()
                self._for(1.0, f"start {node.name}", node.start_agent)
            else:
                return
            raise ProcessKilled(process.name)

        node.disk.wrote = wrote

    def _for(self, seconds: float, name: str, mend: Callable[[], None]) -> None:
        """Mend something after a while, or when the time of faults is over."""
        self._mended[name] = mend
        token = CURRENT.set(None)
        try:
            self._world.loop.call_later(seconds, self._mend, name, mend)
        finally:
            CURRENT.reset(token)

    def _mend(self, name: str, mend: Callable[[], None]) -> None:
        if self._mended.get(name) is mend:
            del self._mended[name]
            self._world.note(f"mended: {name}")
            mend()


def _allowed(what: str) -> None:
    del what
