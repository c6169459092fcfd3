"""Runs per second on simulated agents: the server alone, with the real protocol on real sockets.

The simulated agents are those of `fleetwire swarm`, in a process of their own; the clients are
threads of this one. Both are on the server's cores, so what they cost counts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench.figures import Figure
from bench.scale import Swarm
from bench.throughput import runs_per_second
from fleetwire.client import RunRequest, Script
from fleetwire.testing.lab import Lab

NODES = 100
CLIENTS = 64


def measure(lab: Lab) -> Iterator[Figure]:
    """Yield the figures of this group."""
    with Swarm(lab, NODES) as swarm:
        swarm.wait_online(NODES)
        names = [node.name for node in lab.client.nodes()]
        yield Figure(
            group="simulated",
            what=f"runs per second end to end, {NODES} simulated agents, {CLIENTS} clients",
            unit="/s", better="higher",
            value=runs_per_second(lab, names, count=6400, threads=CLIENTS),
            must=500, aim=3000,
        )  # fmt: skip
        client = lab.client
        request = RunRequest(Script("true"), selector="swarm=yes")
        took = []
        for _ in range(5):
            begin = time.perf_counter()
            assert client.wait(client.create_run(request).id).outcome == "succeeded"
            took.append(time.perf_counter() - begin)
        yield Figure(
            group="simulated", what=f"one script on {NODES} simulated agents, all results stored",
            unit="s", better="lower", value=sorted(took)[2],
        )  # fmt: skip
