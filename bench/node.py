"""What a no-op run costs its node, in CPU: a busy machine changes it less than any wall time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import psutil

from bench import bare, throughput
from bench.figures import Figure
from fleetwire.testing.lab import Lab

RUNS = 600
_LAG_S = 1.0  # after the last run: reports confirmed, folders marked


def measure(lab: Lab) -> Iterator[Figure]:
    """Yield CPU milliseconds for each no-op run, for each part of the node."""
    lab.start_agent("node-1", "--max-concurrent", "16")
    throughput.runs_per_second(lab, ["node-1"], count=100, threads=4)  # shims are there, code warm
    agent, spawner = psutil.Process(lab.agents["node-1"].pid), lab.spawner("node-1")
    before = _cpu_s(agent), _tree_cpu_s(spawner)
    throughput.runs_per_second(lab, ["node-1"], count=RUNS, threads=4)
    time.sleep(_LAG_S)
    after = _cpu_s(agent), _tree_cpu_s(spawner)
    ours, theirs = ((end - begin) * 1000 / RUNS for begin, end in zip(before, after, strict=True))
    spawn = bare_spawn_cpu_ms()
    yield Figure(
        group="node", what="CPU of the agent for each no-op run", unit="ms", better="lower",
        value=ours, bare=spawn, bare_what="CPU of a bare posix_spawn of sh",
    )  # fmt: skip
    yield Figure(
        group="node", what="CPU of spawner, shim and task for each no-op run", unit="ms",
        better="lower", value=theirs, bare=spawn, bare_what="CPU of a bare posix_spawn of sh",
    )  # fmt: skip


def bare_spawn_cpu_ms() -> float:
    """Return the CPU of a bare spawn, the child's and the parent's, in milliseconds."""
    before = os.times()
    count = round(bare.spawns_per_second(1.0))  # the loop ran for one second
    after = os.times()
    return sum(end - begin for begin, end in zip(before[:4], after[:4], strict=True)) * 1000 / count


def _cpu_s(process: psutil.Process) -> float:
    """Return user and system time of a process and of its children that were waited for."""
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def _tree_cpu_s(spawner: psutil.Process) -> float:
    return _cpu_s(spawner) + sum(_cpu_s(shim) for shim in spawner.children())
