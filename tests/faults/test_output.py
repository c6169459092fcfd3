"""Output in all shapes and sizes is stored byte for byte (P5), within bounded memory."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Self

import pytest

from fleetwire.client import Run, RunRequest, Script
from fleetwire.testing.lab import Lab, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.slow]

MIB = 1024 * 1024

# Each script writes the SHA-256 of what it prints into the ledger: an outside judgement.
TWO_HUNDRED_MB = """
import hashlib, os, sys
block = bytes(range(256)) * 4096
digest = hashlib.sha256()
for n in range(200):
    piece = block[n:] + block[:n]
    digest.update(piece)
    sys.stdout.buffer.write(piece)
sys.stdout.buffer.flush()
open(sys.argv[1], "a").write(digest.hexdigest() + "\\n")
"""
A_MILLION_LINES = """
import hashlib, sys
digest = hashlib.sha256()
for block in range(1000):
    text = "".join(f"line {block * 1000 + n} of a million, padded\\n" for n in range(1000)).encode()
    digest.update(text)
    sys.stdout.buffer.write(text)
sys.stdout.buffer.flush()
open(sys.argv[1], "a").write(digest.hexdigest() + "\\n")
"""
ODD = """
import hashlib, os, sys
out = [b"\\x00\\xff\\xfe binary \\x1b[31m", b"x" * (10 * 1024 * 1024), b"\\n", b"no newline"]
digest = hashlib.sha256()
for piece in out:
    digest.update(piece)
    at = 0
    while at < len(piece):
        at += os.write(1, piece[at:])
open(sys.argv[1], "a").write(digest.hexdigest() + "\\n")
"""


def pss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("smaps_rollup has no Pss")


def python(lab: Lab, script: str) -> Run:
    spec = Script(script, "python", args=(str(lab.ledger.path),), timeout=300)
    return lab.client.create_run(RunRequest(spec, nodes=("node-1",)))


class Peak:
    """The highest PSS of a process while the block runs."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.before = self.highest = pss(pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            self.highest = max(self.highest, pss(self.pid))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def growth(self) -> int:
        return self.highest - self.before


@pytest.mark.parametrize(
    "script", [TWO_HUNDRED_MB, A_MILLION_LINES, ODD], ids=["200-mb", "a-million-lines", "odd"]
)
def test_output_is_stored_byte_for_byte_in_bounded_memory(lab: Lab, script: str) -> None:
    agent = lab.start_agent()
    lab.client.wait(lab.submit("true").id)
    assert lab.server is not None
    with Peak(agent.pid) as of_agent, Peak(lab.server.pid) as of_server:
        run = python(lab, script)
        (task,) = lab.client.wait(run.id).tasks
        raw = hashlib.sha256()
        size = 0
        for block in lab.client.raw_log(task.attempt):
            raw.update(block)
            size += len(block)
    assert task.outcome == "succeeded", task.reason
    (written,) = lab.ledger.lines()
    assert raw.hexdigest() == written == task.log.sha256
    assert task.log.length == size
    assert of_agent.growth < 64 * MIB
    assert of_server.growth < 64 * MIB


def test_both_streams_are_kept_apart_and_whole(lab: Lab) -> None:
    lab.start_agent()
    script = "for i in $(seq 1 2000); do echo out $i; echo err $i >&2; done\n"
    (task,) = lab.client.wait(lab.submit(script).id).tasks
    streams: dict[str, bytes] = {"stdout": b"", "stderr": b""}
    offset = 0
    while offset < (task.log.length or 0):
        page = lab.client.log(task.attempt, offset=offset)
        for part in page.parts:
            streams[part.stream] += part.data
        offset = page.next_offset
    assert streams["stdout"] == b"".join(b"out %d\n" % n for n in range(1, 2001))
    assert streams["stderr"] == b"".join(b"err %d\n" % n for n in range(1, 2001))


def test_a_log_larger_than_the_spool_quota_is_complete(lab: Lab) -> None:
    lab.start_agent(env={"FLEETWIRE_AGENT_SPOOL_QUOTA_BYTES": str(32 * MIB)})
    script = TWO_HUNDRED_MB.replace("range(200)", "range(400)")
    run = python(lab, script)
    (task,) = lab.client.wait(run.id).tasks
    (written,) = lab.ledger.lines()
    assert (task.log.sha256, task.log.length) == (written, 400 * MIB)


def blocked(lab: Lab, attempt: str) -> bool:
    return any(
        "pipe" in Path(f"/proc/{process.pid}/wchan").read_text()
        for process in lab.processes_of(attempt)
    )


def test_a_full_spool_blocks_and_goes_on_when_the_server_is_back(lab: Lab) -> None:
    lab.start_agent(env={"FLEETWIRE_AGENT_SPOOL_QUOTA_BYTES": str(32 * MIB)})
    script = "import sys\n" + TWO_HUNDRED_MB.replace("import hashlib, os, sys", "import hashlib")
    lab.client.wait(lab.submit("true").id)
    run = python(lab, "import time; time.sleep(1)\n" + script)
    attempt = run.tasks[0].attempt
    wait_until(lambda: lab.processes_of(attempt), "the start")
    assert lab.server is not None
    lab.server.kill()
    spool = lab.folder / "agents" / "node-1" / "spool" / attempt

    def spooled() -> int:
        return sum(piece.stat().st_size for piece in spool.glob("output.*"))

    # The task still wants to write 150 MB: only the quota can hold it here.
    seen: list[int] = []

    def stands_still() -> bool:
        seen.append(spooled())
        return seen[-1] >= 16 * MIB and seen[-100:] == [seen[-1]] * 100

    wait_until(stands_still, "a full spool, and the task waiting for room")
    assert blocked(lab, attempt)
    assert seen[-1] <= 34 * MIB
    lab.start_server()
    (task,) = lab.client.wait(run.id).tasks
    (written,) = lab.ledger.lines()
    assert (task.log.sha256, task.log.length) == (written, 200 * MIB)
