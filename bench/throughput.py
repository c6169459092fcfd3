"""How much goes through: no-op scripts on one agent, fan-out, simulated agents, one big log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence

from bench import bare
from bench.figures import Figure
from fleetwire.client import Client, LogBytes, RunRequest, Script
from fleetwire.testing.lab import Lab

GROUP = "throughput"
LOG_MB = 100
WRITER = f"""
import sys
line = b"x" * 99 + b"\\n"
block = line * 1000
for _ in range({LOG_MB * 1_000_000 // 100_000}):
    sys.stdout.buffer.write(block)
"""


def measure_one_agent(lab: Lab) -> Iterator[Figure]:
    """Yield no-op scripts per second through one real agent, and one big log."""
    lab.start_agent("node-1", "--max-concurrent", "16")
    spawns = bare.spawns_per_second()
    value = runs_per_second(lab, ["node-1"], count=1500, threads=4)
    yield Figure(
        group=GROUP, what="no-op scripts per second, one real agent, end to end", unit="/s",
        better="higher", value=value, must=150, aim=max(480, 0.45 * spawns),
        bare=spawns, bare_what="posix_spawn loop, one at a time",
    )  # fmt: skip
    speed = _big_log(lab)
    yield Figure(
        group=GROUP, what="100 MB in 1,000,000 lines, live and complete at the caller",
        unit="MB/s", better="higher", value=speed, must=25, aim=100,
        bare=bare.pipe_to_file_mb_s([sys.executable, "-c", WRITER]),
        bare_what="the same writer through a pipe into a hashed, synced file",
    )  # fmt: skip


def measure_three_agents(lab: Lab) -> Iterator[Figure]:
    """Yield no-op scripts per second through three real agents on this machine."""
    names = [f"node-{n}" for n in range(3)]
    for name in names:
        lab.start_agent(name, "--max-concurrent", "16")
    spawns = bare.spawns_per_second()
    yield Figure(
        group=GROUP, what="no-op scripts per second, three real agents, end to end", unit="/s",
        better="higher", value=runs_per_second(lab, names, count=1500, threads=6),
        bare=spawns, bare_what="posix_spawn loop, one at a time",
    )  # fmt: skip


def measure_fan_out(lab: Lab, nodes: int = 50) -> Iterator[Figure]:
    """Yield how long `echo hi` takes on 50 real agents, until the last result is in hand."""
    for n in range(nodes):
        lab.start_agent(f"node-{n}")
    client = lab.client
    request = RunRequest(Script("echo hi"), selector="os=linux")
    took = []
    for _ in range(5):
        begin = time.perf_counter()
        run = client.wait(client.create_run(request).id)
        took.append(time.perf_counter() - begin)
        assert (run.outcome, run.counts["succeeded"]) == ("succeeded", nodes)
    yield Figure(
        group="fan-out", what=f"echo hi on {nodes} real agents, until the last result", unit="s",
        better="lower", value=sorted(took)[len(took) // 2], must=1, aim=0.2,
        bare=nodes / bare.spawns_per_second(), bare_what=f"{nodes} bare spawns, one at a time",
    )  # fmt: skip


def runs_per_second(lab: Lab, nodes: Sequence[str], *, count: int, threads: int) -> float:
    """Submit `count` no-op runs over the nodes from a few clients and return runs ended a
    second, from the first submit to the last end.
    """
    clients = [lab.client for _ in range(threads)]
    failures: list[BaseException] = []
    last: list[str] = []

    def submit(client: Client, share: range) -> None:
        try:
            for n in share:
                request = RunRequest(Script("true"), nodes=(nodes[n % len(nodes)],))
                run = client.create_run(request)
            last.append(run.id)
        except BaseException as error:  # noqa: BLE001  # shown by the caller
            failures.append(error)

    begin = time.perf_counter()
    workers = [
        threading.Thread(target=submit, args=(client, range(n, count, threads)))
        for n, client in enumerate(clients)
    ]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join()
    if failures:
        raise failures[0]
    client = clients[0]
    while any(True for _ in client.runs(state="pending")) or any(
        True for _ in client.runs(state="running")
    ):
        time.sleep(0.02)
    took = time.perf_counter() - begin
    assert all(client.run(one).outcome == "succeeded" for one in last)
    return count / took


def _big_log(lab: Lab) -> float:
    client = lab.client
    best = 0.0
    for _ in range(3):
        size = 0
        request = RunRequest(Script(WRITER, "python"), nodes=("node-1",))
        begin = time.perf_counter()
        for event in client.follow(client.create_run(request).id):
            if isinstance(event, LogBytes):
                size += sum(len(part.data) for part in event.parts)
        best = max(best, size / 1e6 / (time.perf_counter() - begin))
        assert size == LOG_MB * 1_000_000, size
    return best
