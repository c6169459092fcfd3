"""How long a no-op run takes, from submit to the result in hand."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

from bench import bare
from bench.figures import Figure, percentile
from fleetwire.client import LogBytes, RunRequest, Script
from fleetwire.testing.lab import PROGRAM, Lab

GROUP = "latency"
NO_OP = RunRequest(Script("true"), nodes=("node-1",))
FIRST_LINE = RunRequest(Script("date +%s%N; sleep 0.2"), nodes=("node-1",))


def measure(lab: Lab) -> Iterator[Figure]:
    """Yield the figures of this group; one real agent."""
    lab.start_agent()
    took = _no_ops(lab, 220)[20:]
    floor = bare.durable_spawn_ms(syncs=4)
    what = "posix_spawn of sh and 4 durable writes in a row"
    yield Figure(
        group=GROUP, what="no-op script, warm client, p50", unit="ms", better="lower",
        value=percentile(took, 0.5), must=25, aim=5, bare=floor, bare_what=what,
    )  # fmt: skip
    yield Figure(
        group=GROUP, what="no-op script, warm client, p95", unit="ms", better="lower",
        value=percentile(took, 0.95), must=60, aim=10, bare=floor, bare_what=what,
    )  # fmt: skip
    yield Figure(
        group=GROUP, what="fleetwire run -- true, whole process, p50", unit="ms", better="lower",
        value=percentile(_cli(lab, 15), 0.5), must=400, aim=120,
        bare=bare.interpreter_start_ms(), bare_what="start of a Python that does nothing",
    )  # fmt: skip
    yield Figure(
        group=GROUP, what="first line, written to visible at the caller, p50", unit="ms",
        better="lower", value=percentile(_first_lines(lab, 30), 0.5), must=500, aim=30,
    )  # fmt: skip


def _no_ops(lab: Lab, times: int) -> list[float]:
    client = lab.client
    took = []
    for _ in range(times):
        begin = time.perf_counter()
        run = client.wait(client.create_run(NO_OP).id)
        took.append((time.perf_counter() - begin) * 1000)
        assert run.outcome == "succeeded", run
    return took


def _cli(lab: Lab, times: int) -> list[float]:
    took = []
    for _ in range(times):
        begin = time.perf_counter()
        subprocess.run(
            [*PROGRAM, "run", "--node", "node-1", "--", "true"],
            env=lab.env,
            check=True,
            capture_output=True,
        )
        took.append((time.perf_counter() - begin) * 1000)
    return took


def _first_lines(lab: Lab, times: int) -> list[float]:
    client = lab.client
    took = []
    for _ in range(times):
        seen = 0
        text = b""
        for event in client.follow(client.create_run(FIRST_LINE).id):
            if isinstance(event, LogBytes) and not seen:
                seen = time.time_ns()
                text = event.parts[0].data
        took.append((seen - int(text.split()[0])) / 1e6)
    return took
