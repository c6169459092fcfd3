"""One round on one system: what is done to it and when, and what was found broken."""

from __future__ import annotations

import contextlib
import heapq
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Final, TypeAlias

from fleetwire.client import Client, ClientError
from fleetwire.testing.faults.load import Load
from fleetwire.testing.faults.system import System
from fleetwire.testing.faults.tasks import Kind, Task
from fleetwire.testing.simulation.chance import Chance

Act: TypeAlias = Generator[float, None, None]
"""Something that goes on during a round; it yields the seconds until its next step."""

_PROBE_S: Final = 1.0


class NotRun(Exception):
    """The round needs something that this machine has not; the message says what."""


class Stage:
    """What a round has at hand. Violations are collected in `broken`, steps in `story`.

    `for_s`: how long a soak lasts. `scale`: below 1 in a short round. `k`: which crash point.
    `powerless`: attempts whose spool was harmed. `expected`: words of tracebacks that the round
    itself has caused.
    """

    def __init__(self, system: System, chance: Chance, name: str, for_s: float = 60.0) -> None:
        self.for_s = for_s
        self.scale = 1.0
        self.k = 0
        self.system = system
        self.chance = chance
        self.name = name
        self.story: list[str] = []
        self.broken: list[str] = []
        self.faults: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.measures: dict[str, float] = {}
        self.powerless: set[str] = set()
        self.expected: tuple[str, ...] = ()
        self._loads = 0
        self._began = time.monotonic()

    def times(self, usual: int) -> int:
        """Return how often to do what is usually done so many times: fewer in a short round."""
        return max(1, round(usual * self.scale))

    def did(self, what: str, fault: str = "") -> None:
        """Note a step with its time; `fault` is what it counts as."""
        self.story.append(f"{time.monotonic() - self._began:.3f} {what}")
        if fault:
            self.faults[fault] += 1

    def play(self, acts: Iterable[Act]) -> None:
        """Play acts beside each other until all are over."""
        queue = [(time.monotonic(), n, act) for n, act in enumerate(acts)]
        heapq.heapify(queue)
        while queue:
            due, n, act = heapq.heappop(queue)
            wait_for_due(due)
            with contextlib.suppress(StopIteration):
                pause = next(act)
                heapq.heappush(queue, (time.monotonic() + pause, n, act))

    @contextlib.contextmanager
    def loaded(
        self,
        *,
        most: int = 8,
        kinds: tuple[Kind, ...] = (),
        tasks: Sequence[Task] = (),
        shims_may_die: bool = False,
    ) -> Iterator[Load]:
        """Have a load on the system for a block; judge all of it when the block has ended."""
        self._loads += 1
        name = f"{self.name}.{self._loads}"
        load = Load(self.system, self.chance.fork(name), name, most=most, kinds=kinds, tasks=tasks)
        load.start()
        try:
            yield load
        except BaseException:
            load.close(within=0.0)
            raise
        self.system.restore()
        load.close()
        self.broken += load.judge(powerless=self.powerless, shims_may_die=shims_may_die)
        self.outcomes.update(load.outcomes)
        self.faults.update(self.system.faults)
        self.system.faults.clear()
        self.broken += [f"P8 {sentence}" for sentence in self.system.ended]
        self.system.ended.clear()
        self.broken += [
            f"a traceback in {said}"
            for said in self.system.tracebacks()
            if not any(word in said for word in self.expected)
        ]

    def server_serves(self) -> bool:
        """Say whether the server answers that it is ready."""
        lab = self.system.lab
        with Client(lab.url, timeout=_PROBE_S, patience=0.0) as client:
            try:
                client.ready()
            except ClientError:
                return False
        return True


def wait_for_due(due: float) -> None:
    """Sleep until this time of the monotonic clock."""
    left = due - time.monotonic()
    if left > 0:
        time.sleep(left)
