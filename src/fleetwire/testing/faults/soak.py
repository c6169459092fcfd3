"""The soak: hours of steady load with a random fault every 30 s, and sizes that must stay flat."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from pathlib import Path
from typing import Final

import psutil

from fleetwire.testing.faults import kills, network
from fleetwire.testing.faults.stage import Act, Stage
from fleetwire.testing.faults.trend import MEASURES, Sample, growth, steep

_FAULT_EVERY_S: Final = 30.0
_STRETCH_S: Final = 60.0
_OWN: Final = ("Anonymous:", "Swap:")


class Sizes:
    """Samples of each process that was seen, by its role and pid."""

    def __init__(self) -> None:
        self.lives: defaultdict[tuple[str, int], list[Sample]] = defaultdict(list)
        self._began = time.monotonic()

    def look(self, role: str, pid: int) -> None:
        """Take a sample, if the process lives."""
        with contextlib.suppress(OSError, psutil.Error):
            process = psutil.Process(pid)
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            own = sum(int(line.split()[1]) for line in rollup if line.startswith(_OWN))
            at = time.monotonic() - self._began
            sample = Sample(at, own * 1024, process.num_fds(), process.num_threads())
            self.lives[role, pid].append(sample)

    def steep(self) -> list[str]:
        """Return what is not flat, one sentence for each."""
        return [
            f"{role} is not flat: {sentence}"
            for (role, _), samples in self.lives.items()
            for sentence in steep(samples)
        ]

    def growths(self) -> dict[str, float]:
        """Return the largest growth of each measure and role among the lives that were judged."""
        found: dict[str, float] = {}
        for (role, _), samples in self.lives.items():
            kind = role.partition(" ")[0]
            for measure in MEASURES:
                if (grown := growth(samples, measure)) is not None:
                    name = f"{kind} {measure} growth"
                    found[name] = max(found.get(name, grown), grown)
        return found


def soak(stage: Stage) -> None:
    """Steady load for `--for TIME`, a random fault every 30 s, sizes that must stay flat."""
    sizes = Sizes()
    over = time.monotonic() + stage.for_s
    while (left := over - time.monotonic()) > 0:
        stretch = min(_STRETCH_S, left)
        with stage.loaded(most=6):
            stage.play([_faults(stage, stretch)])
        _look(stage, sizes)
    stage.broken += sizes.steep()
    stage.measures.update(sizes.growths())


def _look(stage: Stage, sizes: Sizes) -> None:
    """Look at all processes at rest, when all of a stretch has ended: while there is load it is
    the load that is measured.
    """
    system = stage.system
    sizes.look("server", system.server.pid)
    for name in system.names:
        sizes.look(f"agent {name}", system.lab.agents[name].pid)
        with contextlib.suppress(LookupError):
            sizes.look(f"spawner {name}", system.lab.spawner(name).pid)


def _faults(stage: Stage, for_s: float) -> Act:
    chance = stage.chance.fork(f"soak {len(stage.story)}")
    over = time.monotonic() + for_s
    yield min(for_s, _FAULT_EVERY_S) / 2
    while time.monotonic() < over:
        began = time.monotonic()
        name = chance.pick(stage.system.names)
        # Mostly what a process has to survive: one that is killed has no trend.
        if chance.odds(0.6):
            yield from network.troubled(stage, name, 1)
        elif chance.odds(0.5):
            yield from kills.paused(stage, name)
        else:
            yield from kills.killed(stage, name)
        yield max(0.0, began + _FAULT_EVERY_S - time.monotonic())
