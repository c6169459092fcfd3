"""Puts the simulated system in the place of the real one, in the modules of agent and shim.

What the modules know as `os`, `fcntl`, `time`, the process tree, the way to a server and the
facts of the machine comes from the world in force; everything else in them is their own code.
"""

from __future__ import annotations

import _thread
import contextlib
import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from unittest import mock

import structlog
from structlog.typing import Processor

from fleetwire.agent import files, folders, level, link, roster, shims, starter, steps
from fleetwire.agent.entry import Entry
from fleetwire.core import limits
from fleetwire.core.desired import Wanted
from fleetwire.shim import burial, locks, records, spool, writer
from fleetwire.testing.simulation.loop import CURRENT
from fleetwire.testing.simulation.network import Connection
from fleetwire.testing.simulation.node import NodeProcess, SimulatedNode
from fleetwire.testing.simulation.system import LOCK_EX, LOCK_NB, LOCK_SH

if TYPE_CHECKING:
    from fleetwire.testing.simulation.world import World

PIECE_BYTES = 2048
"""Pieces so small that rolling, trimming and a full quota happen all the time."""
QUOTA_LEAST = 12 * 1024
OFFLINE_AFTER_S = 18.0


class Installed:
    """Where the patched modules find the world in force."""

    def __init__(self) -> None:
        self.world: World | None = None

    @property
    def here(self) -> World:
        """Return the world."""
        if self.world is None:
            raise AssertionError("no world is in force")
        return self.world

    def set_credit(self, credit: int) -> None:
        """Set how many log bytes a link may have under way."""
        limits.CREDIT_BYTES = credit  # type: ignore[misc]  # put back with the other patches

    def node(self) -> SimulatedNode:
        """Return the node whose process runs now."""
        process = CURRENT.get()
        if not isinstance(process, NodeProcess):
            raise AssertionError(f"{process!r} is no process of a node")  # noqa: TRY004 - a rule, not a type
        return process.node


class _SystemInForce:
    """`os`, as the world in force has it."""

    def __init__(self, installed: Installed) -> None:
        object.__setattr__(self, "_installed", installed)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as what it stands for takes it
        return getattr(self._installed.here.system, name)


class _Patience:
    """`time`, for who waits for a lock: nobody can give it back meanwhile, so waiting is free."""

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += max(seconds, 0.001)


@contextlib.contextmanager
def installed() -> Iterator[Installed]:
    """Replace, for as long as this is entered. Set `world` before anything runs."""
    where = Installed()
    system = _SystemInForce(where)

    # Functions, and not the methods they call: the world in force changes.
    def flock(fd: int, operation: int) -> None:
        where.here.system.flock(fd, operation)

    def sync(fd: int) -> None:
        where.here.system.fdatasync(fd)

    def remove(path: str) -> None:
        where.here.system.remove_tree(path)

    async def dial(server: str, node: str, *, timeout_s: float, tls: object) -> Connection:
        del server, tls
        return await where.here.dial(node, timeout_s=timeout_s)

    def wall_ns() -> int:
        return where.node().wall() * 1000

    def start_thread(call: Any, args: tuple[object, ...]) -> None:  # noqa: ANN401 - as what it stands for takes it
        call(*args)

    lock_calls = SimpleNamespace(
        LOCK_SH=LOCK_SH, LOCK_EX=LOCK_EX, LOCK_NB=LOCK_NB,
        flock=flock,
    )  # fmt: skip
    tree = SimpleNamespace(
        boot_id=lambda: where.node().boot_id,
        descendants=lambda _: [],  # nobody copies a folder there
        survivors=lambda attempt, _pid, _start: where.node().survivors(attempt),
        kill_each=lambda processes: where.node().kill_each(processes),
    )
    patches: list[tuple[object, str, object]] = [
        (records, "os", system),
        (locks, "os", system),
        (locks, "fcntl", lock_calls),
        (locks, "time", _Patience()),
        (spool, "os", system),
        (writer, "os", system),
        (writer, "_sync_data", sync),
        (writer, "time", SimpleNamespace(time_ns=wall_ns)),
        (writer, "_thread", SimpleNamespace(
            allocate_lock=_thread.allocate_lock, start_new_thread=start_thread
        )),
        (burial, "os", system),
        (burial, "time", SimpleNamespace(time_ns=wall_ns, sleep=lambda _: None)),
        (burial, "tree", tree),
        (files, "os", system),
        (folders, "os", system),
        (folders, "remove_tree", remove),
        (roster, "os", system),
        (level, "os", system),
        (level, "open", lambda path, _: where.here.system.reading(path)),
        (steps, "os", system),
        (steps, "open", lambda path, _: where.here.system.reading(path)),
        (starter, "os", system),
        (starter, "shutil", SimpleNamespace(disk_usage=lambda path: where.node().disk_usage(path))),
        (starter, "_QUOTA_LEAST", QUOTA_LEAST),
        (starter, "_base_environment", lambda search, _who: {"PATH": search}),
        (shims, "control", SimpleNamespace(
            ask=lambda folder, request: where.node().ask_shim(folder, request)
        )),
        (link, "open_channel", dial),
        (link, "inventory", SimpleNamespace(collect=dict, load=lambda: 0.0)),
        (link, "platforms", SimpleNamespace(boot_id=lambda: where.node().boot_id)),
        (limits, "PIECE_BYTES", PIECE_BYTES),
        (limits, "OFFLINE_AFTER_S", OFFLINE_AFTER_S),
        (limits, "CREDIT_BYTES", limits.CREDIT_BYTES),
    ]  # fmt: skip

    take_place = roster.Roster._take_place  # noqa: SLF001 - two halves of one thing

    def observed(self: roster.Roster, entry: Entry, wanted: Wanted) -> None:
        where.here.start_decided(where.node(), wanted.attempt, self.level.admin)
        take_place(self, entry, wanted)

    patches.append((roster.Roster, "_take_place", observed))

    def keep(logger: object, name: str, event: dict[str, Any]) -> Any:  # noqa: ANN401 - as what it stands for takes it
        del logger
        if where.world is not None:
            where.world.heard(name, event)
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[cast("Processor", keep)], cache_logger_on_first_use=False)
    agent_log = logging.getLogger("fleetwire.agent")
    agent_level = agent_log.level
    agent_log.setLevel(logging.CRITICAL + 1)
    with contextlib.ExitStack() as stack:
        for target, name, value in patches:
            stack.enter_context(mock.patch.object(target, name, value, create=name == "open"))
        try:
            yield where
        finally:
            agent_log.setLevel(agent_level)
            structlog.configure(**before)
