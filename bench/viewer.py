"""One gigabyte of log as a person looks at it, and many slow viewers of one fast task."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench import bare
from bench.figures import Figure
from fleetwire.client import LogBytes, RunRequest, Script
from fleetwire.testing.lab import Lab

GROUP = "viewer"
NEEDLE = "the needle"
SCREEN = 200
VIEWERS = 100
ROUNDS = 5
GIGABYTE = f"""
import sys
for block in range(10_000):
    rows = [b"%09d %s\\n" % (block * 1000 + n, b"x" * 89) for n in range(1000)]
    if block == 9_999:
        rows[-1] = b"{NEEDLE}\\n"
    sys.stdout.buffer.write(b"".join(rows))
"""
FAST_MB = 200
FAST = f"""
import sys
block = (b"x" * 99 + b"\\n") * 1000
for _ in range({FAST_MB * 10}):
    sys.stdout.buffer.write(block)
"""


def measure(lab: Lab) -> Iterator[Figure]:
    """Yield the figures of the log viewer's API, and what slow viewers cost."""
    lab.start_agent()
    yield from _slow_viewers(lab)
    yield from _gigabyte(lab)


def _gigabyte(lab: Lab) -> Iterator[Figure]:
    client = lab.client
    run = client.wait(
        client.create_run(RunRequest(Script(GIGABYTE, "python"), nodes=("node-1",))).id
    )
    (task,) = run.tasks
    assert (task.outcome, task.log.complete) == ("succeeded", True)

    def first() -> None:
        assert len(client.log_lines(task.attempt, lines=SCREEN).lines) == SCREEN

    def middle() -> None:
        page = client.log_lines(task.attempt, line=7_654_321, lines=SCREEN)
        assert page.lines[0].text.startswith("007654321 ")

    def end() -> None:
        assert client.log_tail(task.attempt, SCREEN).lines[-1].text == NEEDLE

    def search() -> None:
        (match,) = client.log_search(task.attempt, NEEDLE)
        assert match.line == 9_999_999

    looks = (
        ("first screen", first, 1.0, 0.2),
        ("jump into the middle", middle, 1.0, 0.2),
        ("jump to the end", end, 1.0, 0.2),
        ("search for the last line", search, 5.0, 2.0),
    )
    for what, look, must, aim in looks:
        took = []
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            look()
            took.append(time.perf_counter() - begin)
        yield Figure(
            group=GROUP, what=f"1 GB log, 10,000,000 lines: {what}", unit="s", better="lower",
            value=sorted(took)[ROUNDS // 2], must=must, aim=aim, note=f"median of {ROUNDS}",
        )  # fmt: skip


def _slow_viewers(lab: Lab) -> Iterator[Figure]:
    """Alone and watched in turn, so that a busy machine is no argument; the best of each."""
    assert lab.server is not None
    alone, watched = 0.0, 0.0
    for _ in range(ROUNDS):
        alone = max(alone, _speed(lab, 0))
        watched = max(watched, _speed(lab, VIEWERS))
    yield Figure(
        group=GROUP, what=f"one task at full speed with {VIEWERS} viewers that do not read",
        unit="MB/s", better="higher", value=watched, must=0.95 * alone, aim=0.98 * alone,
        bare=alone, bare_what="the same without them",
    )  # fmt: skip
    yield Figure(
        group=GROUP, what=f"server after {VIEWERS} viewers that do not read, PSS", unit="MiB",
        better="lower", value=bare.pss_mib(lab.server.pid),
    )  # fmt: skip


def _speed(lab: Lab, viewers: int) -> float:
    """Return at how many MB/s one reader gets the log of a task that others only open."""
    client = lab.client
    size = 0
    request = RunRequest(Script(FAST, "python"), nodes=("node-1",))
    begin = time.perf_counter()
    run = client.create_run(request)
    with ExitStack() as stack:
        for _ in range(viewers):
            stack.enter_context(_viewer(lab, run.id))
        for event in client.follow(run.id):
            if isinstance(event, LogBytes):
                size += sum(len(part.data) for part in event.parts)
        took = time.perf_counter() - begin
    assert size == FAST_MB * 1_000_000, size
    return size / 1e6 / took


@contextmanager
def _viewer(lab: Lab, run: str) -> Iterator[None]:
    """Open a run's stream and never read it."""
    asked = (
        f"GET /api/v1/runs/{run}/events?logs=true HTTP/1.1\r\nHost: 127.0.0.1:{lab.port}\r\n"
        f"Authorization: Bearer {lab.env['FLEETWIRE_TOKEN']}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", lab.port)) as viewer:
        viewer.sendall(asked.encode())
        yield
