"""What a run costs, in CPU: `python -m bench.cost`.

Wall time on a shared machine says little, so this counts the CPU time of each process and of each
thread of the server. `--profile py-spy` also says where the server spends it: the program (not
part of this project) looks 500 times a second at who holds the interpreter's lock.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from bench.scale import Swarm
from bench.simulated import CLIENTS, NODES
from bench.throughput import runs_per_second
from fleetwire.client import RunRequest, Script
from fleetwire.testing.lab import Lab

ROOMS = (
    ("the writer: store submissions", "submit_all ("),
    ("the writer: dispatch and sign", "round_ (fleetwire/server/domain/dispatch"),
    ("the writer: levels of the links", "desired (fleetwire/server/domain/desired"),
    ("the writer: take reports", "report (fleetwire/server/domain/attempts"),
    ("the writer: begin, commit, answer", "fleetwire/server/durable/groupcommit"),
    ("streams", "fleetwire/server/api/follow"),
    ("POST /runs: the endpoint", "submit (fleetwire/server/api/runs"),
    ("HTTP: authenticate, decode, route", "fleetwire/server/api/do"),
    ("HTTP: parse", "data_received (uvicorn/protocols/http"),
    ("HTTP: write to the socket", "_Whole._flush"),
    ("HTTP: front door, ASGI", "uvicorn/protocols/http"),
    ("links: frames in and out", "fleetwire/server/gateway"),
    ("links: frames in and out", "uvicorn/protocols/websockets"),
    ("loops", "fleetwire/server/loops"),
    ("readers", "concurrent/futures/thread"),
)
"""Rooms by what stands in a stack, the first that fits."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.cost", description=__doc__)
    parser.add_argument("--runs", type=int, default=6400)
    parser.add_argument("--profile", metavar="PY-SPY", help="the program to profile with")
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="fleetwire-cost-") as folder,
        Lab(Path(folder)) as lab,
    ):
        lab.start_server()
        assert lab.server is not None
        with Swarm(lab, NODES) as swarm:
            swarm.wait_online(NODES)
            names = [node.name for node in lab.client.nodes()]
            runs_per_second(lab, names, count=320, threads=CLIENTS)  # warm
            many = {"server": lab.server.pid, "swarm": swarm.pid, "clients": os.getpid()}
            with _cost(many, asked.runs, f"{CLIENTS} clients, {NODES} agents"):
                runs_per_second(lab, names, count=asked.runs, threads=CLIENTS)
            with _cost(many, 300, "one after another, submit and wait"):
                client = lab.client
                for _ in range(300):
                    request = RunRequest(Script("true"), nodes=(names[0],))
                    client.wait(client.create_run(request).id)
            if asked.profile is not None:
                _say("")
                out = Path(folder) / "stacks"
                with _profiled(asked.profile, lab.server.pid, out):
                    runs_per_second(lab, names, count=asked.runs, threads=CLIENTS)
                _say_rooms(out.read_text().splitlines())


@contextmanager
def _cost(processes: dict[str, int], runs: int, what: str) -> Iterator[None]:
    """Say what the block costs each process, and each thread of the server, in us a run."""
    before = {name: sum(psutil.Process(pid).cpu_times()[:2]) for name, pid in processes.items()}
    threads = _threads(processes["server"])
    yield
    _say(f"{what}: us of CPU a run")
    for name, pid in processes.items():
        used = sum(psutil.Process(pid).cpu_times()[:2]) - before[name]
        _say(f"  {used / runs * 1e6:7.0f}  {name}")
    used_of = {
        thread: spent - threads.get(thread, 0.0)
        for thread, spent in _threads(processes["server"]).items()
    }
    busiest = sorted(used_of.values(), reverse=True)[:3]
    _say(
        "           of which its busiest threads "
        + ", ".join(f"{one / runs * 1e6:.0f}" for one in busiest)
    )


def _threads(pid: int) -> dict[int, float]:
    return {one.id: one.user_time + one.system_time for one in psutil.Process(pid).threads()}


@contextmanager
def _profiled(program: str, pid: int, out: Path) -> Iterator[None]:
    argv = [program, "record", "--pid", str(pid), "--format", "raw", "--output", str(out)]
    argv += ["--rate", "500", "--duration", "600", "--threads", "--gil"]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as profiler:
        yield
        profiler.send_signal(signal.SIGINT)


def _say_rooms(stacks: Iterable[str]) -> None:
    found: Counter[str] = Counter()
    for line in stacks:
        stack, _, count = line.rpartition(" ")
        plain = re.sub(r":\d+\)", ")", stack)
        room = next(
            (room for room, mark in ROOMS if mark in plain), "the event loop itself, others"
        )
        found[room] += int(count)
    _say("| where the server holds the interpreter's lock | share |\n|---|---|")
    for room, seen in found.most_common():
        _say(f"| {room} | {seen / found.total() * 100:.0f} % |")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
