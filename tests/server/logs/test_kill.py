"""kill -9 in the middle of appends: what was acknowledged is there, whole and in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from fleetwire.server.logs.store import SegmentedLogs

DAY = "2026-11-20"
ATTEMPTS = [f"0199c0de-0000-7000-8000-{n:012d}" for n in range(8)]

CHILD = """
import asyncio, sys
from fleetwire.server.logs import chunks, open_logs
from fleetwire.core.chunks import Piece
from fleetwire.server.nudges.memory import MemoryNudges

async def main():
    logs = open_logs(sys.argv[1], nudges=MemoryNudges(), clock=lambda: 0)
    async def write(attempt):
        offset = (await logs.lengths([(sys.argv[2], attempt)]))[attempt]
        while True:
            data = b"%09d\\n" % (offset // 10) * 1
            body = chunks.encode([Piece(1, len(data), 0)], data)
            offset = (await logs.append("n", 1, sys.argv[2], attempt, offset, body)).length
            print(attempt, offset, flush=True)
    async with asyncio.TaskGroup() as group:
        for attempt in sys.argv[3:]:
            group.create_task(write(attempt))

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.faults
def test_what_was_acknowledged_before_kill_9_is_there(
    with_logs: Callable[..., None], logs_at: str
) -> None:
    acknowledged = dict.fromkeys(ATTEMPTS, 0)
    for lines in (1, 100, 500):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, logs_at, DAY, *ATTEMPTS],
            stdout=subprocess.PIPE,
            env=os.environ,
        )
        with child:
            assert child.stdout is not None
            told = [child.stdout.readline() for _ in range(lines)]
            child.send_signal(signal.SIGKILL)
            told += [line for line in child.stdout if line.endswith(b"\n")]
        for attempt, length in (line.split() for line in told):
            acknowledged[attempt.decode()] = int(length)

        async def check(logs: SegmentedLogs) -> None:
            lengths = await logs.lengths([(DAY, attempt) for attempt in ATTEMPTS])
            for attempt, length in lengths.items():
                assert length >= acknowledged[attempt]
                read = await logs.read(DAY, attempt, 0, 1 << 22)
                expected = b"".join(b"%09d\n" % n for n in range(length // 10))
                assert b"".join(chunk.data for chunk in read) == expected

        with_logs(check)
