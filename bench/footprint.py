"""Memory, CPU and start of the daemons that run on every machine."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psutil

from bench import bare
from bench.figures import Figure
from fleetwire.client import RunRequest, Script
from fleetwire.testing.lab import Lab, wait_until

GROUP = "footprint"
IDLE_S = 30.0
FLEET = 50


def measure(lab: Lab) -> Iterator[Figure]:
    """Yield the figures of this group; 50 real agents."""
    lab.start_agent()
    begin = time.perf_counter()
    agent = lab.start_agent("started")
    started = time.perf_counter() - begin
    for n in range(2, FLEET):
        lab.start_agent(f"node-{n}")
    client = lab.client
    client.wait(client.create_run(RunRequest(Script("true"), nodes=("started",))).id)
    assert lab.server is not None
    cpu_agent, cpu_server = _idle_cpu(agent.pid, lab.server.pid)
    asyncio_python = bare.interpreter_pss_mib("import asyncio, ssl")
    yield Figure(
        group=GROUP, what="agent idle, PSS", unit="MiB", better="lower",
        value=bare.pss_mib(agent.pid), must=40, aim=20,
        bare=asyncio_python, bare_what="a Python that has imported asyncio and ssl",
    )  # fmt: skip
    yield Figure(
        group=GROUP, what="agent idle, CPU", unit="%", better="lower",
        value=cpu_agent, must=0.5, aim=0.02,
    )  # fmt: skip
    yield Figure(
        group=GROUP, what="agent, first start with enrolment to online", unit="s", better="lower",
        value=started, must=1.5, aim=0.3,
        bare=bare.interpreter_start_ms() / 1000, bare_what="start of a Python that does nothing",
    )  # fmt: skip
    yield Figure(
        group=GROUP, what=f"server with {FLEET} idle agents, PSS", unit="MiB", better="lower",
        value=bare.pss_mib(lab.server.pid), must=150, aim=80,
        bare=asyncio_python, bare_what="a Python that has imported asyncio and ssl",
    )  # fmt: skip
    yield Figure(
        group=GROUP, what=f"server with {FLEET} idle agents, CPU", unit="%", better="lower",
        value=cpu_server, must=1, aim=0.1,
    )  # fmt: skip
    yield Figure(
        group=GROUP, what="shim idle, private memory", unit="MiB", better="lower",
        value=_shim(lab), must=8, aim=2,
    )  # fmt: skip


def _idle_cpu(*pids: int) -> list[float]:
    time.sleep(5)
    processes = [psutil.Process(pid) for pid in pids]
    before = [sum(process.cpu_times()[:2]) for process in processes]
    time.sleep(IDLE_S)
    after = [sum(process.cpu_times()[:2]) for process in processes]
    return [(b - a) / IDLE_S * 100 for a, b in zip(before, after, strict=True)]


def _shim(lab: Lab) -> float:
    client = lab.client
    run = client.create_run(RunRequest(Script("sleep 600", grace=0), nodes=("started",)))
    spawner = lab.spawner("started")
    wait_until(lambda: client.run(run.id).state == "running", "the shim's task")
    (shim,) = spawner.children()
    private = bare.private_mib(shim.pid)
    client.stop_run(run.id)
    client.wait(run.id)
    return private
