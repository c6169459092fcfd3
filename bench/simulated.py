"""Runs per second on simulated agents: the server alone, with the real protocol on real sockets.

The simulated agents live in a process of their own (`python -m bench.simulated`), which reads
the server's URL and enrolment tokens from standard input and says `ready` when all are online.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import uvloop
from nacl.signing import SigningKey

from bench.figures import Figure
from bench.throughput import runs_per_second
from fleetwire.client import RunRequest, Script
from fleetwire.testing.fake_node import FakeNode, Identity
from fleetwire.testing.lab import Lab

NODES = 100
CLIENTS = 64


def measure(lab: Lab) -> Iterator[Figure]:
    """Yield the figures of this group."""
    with _swarm(lab, NODES):
        names = [node.name for node in lab.client.nodes()]
        yield Figure(
            group="simulated",
            what=f"runs per second end to end, {NODES} simulated agents, {CLIENTS} clients",
            unit="/s", better="higher",
            value=runs_per_second(lab, names, count=6400, threads=CLIENTS),
            must=500, aim=3000,
        )  # fmt: skip
        client = lab.client
        request = RunRequest(Script("true"), selector="os=linux")
        took = []
        for _ in range(5):
            begin = time.perf_counter()
            assert client.wait(client.create_run(request).id).outcome == "succeeded"
            took.append(time.perf_counter() - begin)
        yield Figure(
            group="simulated", what=f"one script on {NODES} simulated agents, all results stored",
            unit="s", better="lower", value=sorted(took)[2],
        )  # fmt: skip


class _swarm:  # noqa: N801  # a context manager that reads as a verb
    """The simulated agents' process, while the context is entered."""

    def __init__(self, lab: Lab, count: int) -> None:
        self._lab = lab
        self._count = count
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> None:
        client = self._lab.client
        tokens = [client.create_enrolment_token().token for _ in range(self._count)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.simulated"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self._lab.env,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"url": self._lab.url, "tokens": tokens}) + "\n")
        self._process.stdin.flush()
        if self._process.stdout.readline().strip() != "ready":
            raise RuntimeError("the simulated agents did not come up")
        while sum(node.link == "online" for node in client.nodes()) < self._count:
            time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


async def _live(url: str, tokens: list[str]) -> None:
    nodes = [_enrol(url, token, f"simulated-{n:04}") for n, token in enumerate(tokens)]
    async with asyncio.TaskGroup() as group:
        for node in nodes:
            group.create_task(node.run_once())
        for node in nodes:
            await node.wait(node.opened.is_set, timeout=60)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sequence = 0
        while True:
            await asyncio.sleep(10)
            sequence += 1
            for node in nodes:
                node.heartbeat(sequence)


def _enrol(url: str, token: str, name: str) -> FakeNode:
    key = SigningKey.generate()
    incarnation = secrets.token_hex(16)
    body = {
        "token": token,
        "name": name,
        "signing_key": base64.b64encode(bytes(key.verify_key)).decode(),
        "sealing_key": base64.b64encode(os.urandom(32)).decode(),
        "incarnation": incarnation,
        "labels": {"os": "linux"},
        "agent_version": "simulated",
        "capacity": 1000,
    }
    place = urlsplit(url)
    connection = http.client.HTTPConnection(str(place.hostname), place.port)
    connection.request(
        "POST", "/api/agents/register/", json.dumps(body), {"Content-Type": "application/json"}
    )
    answer = connection.getresponse()
    told = json.loads(answer.read())
    if answer.status != 201:
        raise RuntimeError(f"enrolment refused: {told}")
    return FakeNode(
        url.replace("http", "ws", 1),
        Identity(told["node"], told["cluster"], key, incarnation),
        clock=lambda: time.time_ns() // 1000,
        nonce=lambda: secrets.token_hex(16),
    )


if __name__ == "__main__":
    asked = json.loads(sys.stdin.readline())
    uvloop.run(_live(asked["url"], asked["tokens"]))
