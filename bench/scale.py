"""Many agents on one server process: memory, rest, fan-out, storms, small messages.

The agents are those of `fleetwire swarm`, in a process of their own beside the server, so what
they cost is on the same cores: figures of time count both sides.
"""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any, Self

import psutil

from bench import bare
from bench.figures import Figure, percentile
from fleetwire.client import Run, RunRequest, Script
from fleetwire.testing.lab import PROGRAM, Lab, wait_until

GROUP = "scale"
AGENTS = 2_000
LONG_AGENTS = 10_000
REST_S = 20.0
SETTLE_S = 12.0
TALKERS = 100
FRAMES = 400
FRAME_BYTES = 100
BACK_S = 180.0


def measure(lab: Lab) -> Iterator[Figure]:
    """Yield the figures of this group with 2,000 agents."""
    yield from _idle(lab, AGENTS, must=300, aim=None)
    yield from _fan_out(lab, AGENTS)
    yield from _storm(lab, AGENTS)
    yield _messages(lab)


def measure_long(lab: Lab) -> Iterator[Figure]:
    """Yield the figures of 10,000 agents: memory, rest, fan-out and storm."""
    yield from _idle(lab, LONG_AGENTS, must=None, aim=None)
    yield from _fan_out(lab, LONG_AGENTS)
    yield from _storm(lab, LONG_AGENTS)


def _idle(lab: Lab, agents: int, *, must: float | None, aim: float | None) -> Iterator[Figure]:
    assert lab.server is not None
    empty = bare.pss_mib(lab.server.pid)
    with Swarm(lab, agents) as swarm:
        swarm.wait_online(agents)
        time.sleep(SETTLE_S)
        server, own = _cpu(lab.server.pid, swarm.pid)
        memory = bare.pss_mib(lab.server.pid)
        yield Figure(
            group=GROUP, what=f"server with {agents:,} idle agents, PSS", unit="MiB",
            better="lower", value=memory, must=must, aim=aim,
            note=f"{(memory - empty) * 1024 / agents:.0f} KiB an agent; "
            f"the swarm has {bare.pss_mib(swarm.pid):.0f} MiB",
        )  # fmt: skip
        yield Figure(
            group=GROUP, what=f"server with {agents:,} idle agents, CPU of one core", unit="%",
            better="lower", value=server,
            note=f"{agents / 10:.0f} heartbeats a second; the swarm takes {own:.1f} %",
        )  # fmt: skip


def _fan_out(lab: Lab, agents: int) -> Iterator[Figure]:
    with Swarm(lab, agents) as swarm:
        swarm.wait_online(agents)
        took = []
        for _ in range(3):
            begin = time.perf_counter()
            _check(_run(lab), agents)
            took.append(time.perf_counter() - begin)
        yield Figure(
            group=GROUP, what=f"one script on {agents:,} simulated agents, all results stored",
            unit="s", better="lower", value=sorted(took)[1],
            must=20 if agents == AGENTS else None, aim=2 if agents == AGENTS else None,
        )  # fmt: skip


def _storm(lab: Lab, agents: int) -> Iterator[Figure]:
    """Kill the server while every agent runs a task that ends while it is away."""
    with Swarm(lab, agents, "--latency", "3s") as swarm:
        swarm.wait_online(agents)
        client = lab.client
        before = swarm.counts["ended"]
        run = client.create_run(RunRequest(Script("true"), selector="swarm=yes"))
        wait_until(
            lambda: swarm.counts["running"] + swarm.counts["ended"] - before == agents,
            "every task to run", within=BACK_S,
        )  # fmt: skip
        assert lab.server is not None
        begin = time.perf_counter()
        lab.server.kill()
        swarm.wait(lambda counts: counts["online"] == 0, "the loss to be seen")
        lab.start_server()
        ready = time.perf_counter() - begin
        with _Asking(lab) as asking:
            swarm.wait_online(agents)
            back = time.perf_counter() - begin
            _check(client.wait(run.id), agents)
            reconciled = time.perf_counter() - begin
        long = agents >= LONG_AGENTS
        yield Figure(
            group=GROUP, what=f"server kill -9 with {agents:,} agents, until all are back",
            unit="s", better="lower", value=back, must=60, aim=None if long else 60,
            note=f"the server was ready after {ready:.1f} s; their {agents:,} tasks, which ended "
            f"meanwhile, were all recorded and sealed after {reconciled:.1f} s",
        )  # fmt: skip
        for what, took in asking.took.items():
            yield Figure(
                group=GROUP, what=f"GET {what} during that storm, p95", unit="ms",
                better="lower", value=percentile(took, 0.95) * 1000,
                note=f"{len(took)} answers, the slowest {max(took) * 1000:.0f} ms",
            )  # fmt: skip
    yield Figure(
        group=GROUP, what=f"agents wrongly called offline, {agents:,} agents", unit="agents",
        better="lower", value=_called_offline(lab), must=0, aim=0,
    )  # fmt: skip


def _messages(lab: Lab) -> Figure:
    """Small log frames, each of which the server has committed when it answers."""
    size = FRAMES * FRAME_BYTES
    flags = ("--output-size", f"{size}B", "--frame-size", f"{FRAME_BYTES}B")
    with Swarm(lab, TALKERS, *flags) as swarm:
        swarm.wait_online(TALKERS)
        client = lab.client
        # The others of this lab's swarm are away now.
        wait_until(
            lambda: sum(node.link == "online" for node in client.nodes()) == TALKERS,
            "the server to see who is away", within=BACK_S,
        )  # fmt: skip
        talkers = [node.name for node in client.nodes() if node.link == "online"]
        request = RunRequest(Script("true"), nodes=tuple(talkers))
        begin = time.perf_counter()
        _check(client.wait(client.create_run(request).id), TALKERS)
        took = time.perf_counter() - begin
    return Figure(
        group=GROUP, what=f"durable small messages, {TALKERS} agents", unit="/s",
        better="higher", value=TALKERS * FRAMES / took, must=1_000, aim=15_000,
        note=f"{FRAME_BYTES} bytes of log each; the time of the whole run counts",
    )  # fmt: skip


class Swarm:
    """`fleetwire swarm` as a process, while the context is entered; its counts as it says them."""

    def __init__(self, lab: Lab, agents: int, *flags: str) -> None:
        self._lab = lab
        self._argv = [
            *PROGRAM, "swarm", "--agents", str(agents), "--capacity", "1000",
            "--state", str(lab.folder / "swarm"), "--output", "jsonl", *flags,
        ]  # fmt: skip
        self.counts: dict[str, Any] = {"online": 0, "running": 0, "ended": 0, "phase": ""}

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._argv, stdout=subprocess.PIPE, text=True, env=self._lab.env
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGINT)
        assert self._process.wait(60) == 0
        self._reader.join()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def wait(self, predicate: Any, what: str, within: float = BACK_S) -> None:  # noqa: ANN401
        """Wait until the counts are so."""
        wait_until(
            lambda: self._process.poll() is not None or predicate(self.counts), what, within=within
        )
        assert self._process.poll() is None, "the swarm has ended"

    def wait_online(self, agents: int) -> None:
        """Wait until so many agents have a link and were told their level."""
        self.wait(
            lambda counts: counts["phase"] == "running" and counts["online"] == agents,
            f"{agents} agents online",
        )

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.counts = json.loads(line)


class _Asking:
    """Asks the API all the time, and notes how long each answer takes."""

    def __init__(self, lab: Lab) -> None:
        self._client = lab.client
        self._stop = threading.Event()
        self.took: dict[str, list[float]] = {"/healthz": [], "/api/v1/runs": []}

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._stop.is_set():
            for what, took in self.took.items():
                begin = time.perf_counter()
                self._client.connection.request("GET", what)
                took.append(time.perf_counter() - begin)
            self._stop.wait(0.02)


def _run(lab: Lab) -> Run:
    client = lab.client
    return client.wait(client.create_run(RunRequest(Script("true"), selector="swarm=yes")).id)


def _check(run: Run, agents: int) -> None:
    assert (run.outcome, run.counts["succeeded"]) == ("succeeded", agents), run.counts


def _cpu(*pids: int) -> list[float]:
    processes = [psutil.Process(pid) for pid in pids]
    before = [sum(process.cpu_times()[:2]) for process in processes]
    time.sleep(REST_S)
    after = [sum(process.cpu_times()[:2]) for process in processes]
    return [(b - a) / REST_S * 100 for a, b in zip(before, after, strict=True)]


def _called_offline(lab: Lab) -> int:
    """Count the decisions that a node is offline, in the record itself. The swarm was never away
    for long enough to deserve one.
    """
    with sqlite3.connect(f"file:{lab.data / 'fleetwire.db'}?mode=ro", uri=True) as record:
        (count,) = record.execute(
            "SELECT count(*) FROM decisions WHERE text LIKE 'is offline%'"
        ).fetchone()
    return int(count)
