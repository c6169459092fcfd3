"""A full spool while the server is away: block, drop, kill (P9), from the flag to the viewer."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from fleetwire.client import Run, RunRequest, Script, Task
from fleetwire.core.attempts import QUOTA_KILLED
from fleetwire.shim import control
from fleetwire.testing.lab import Lab, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.slow]

QUOTA = 1 << 20
# Much more than the quota and a pipe (1 MiB, once there is much) hold together.
MUCH = b"".join(b"%07d\n" % n * 128 for n in range(6144))
WRITE_MUCH = """
import os, sys, time
os.write(1, b"ready\\n")
while not os.path.exists(sys.argv[1]): time.sleep(0.01)
for n in range(6144): os.write(1, b"%07d\\n" % n * 128)
"""
ALL = b"ready\n" + MUCH


def begin(lab: Lab, on_quota: str) -> tuple[Run, Path]:
    """A running task, its server gone, that writes now; and its folder on the node."""
    lab.start_agent("node-1", "--spool-quota-bytes", str(QUOTA))
    go = lab.folder / "go"
    spec = Script(WRITE_MUCH, "python", (str(go),), timeout=120, grace=1, on_quota=on_quota)
    run = lab.client.create_run(RunRequest(spec, nodes=("node-1",)))
    task = task_of(lab, run)
    wait_until(lambda: lab.client.log(task.attempt).length == 6, "its first line on the server")
    assert lab.server is not None
    lab.server.kill()
    go.touch()
    return run, lab.folder / "agents" / "node-1" / "spool" / task.attempt


def task_of(lab: Lab, run: Run) -> Task:
    (task,) = lab.client.run(run.id).tasks or []
    return task


def ended(lab: Lab, run: Run) -> Task:
    lab.start_server()
    lab.client.wait(run.id)
    task = task_of(lab, run)
    assert task.log.state == "sealed"
    return task


def test_block_waits_for_the_server_and_every_byte_arrives(lab: Lab) -> None:
    run, folder = begin(lab, "block")
    status = {"do": "status"}
    wait_until((folder / "started").exists, "what a lasting task has, its control socket with it")
    wait_until(lambda: control.ask(str(folder), status)["blocked"], "the shim to stop reading")
    assert control.ask(str(folder), status)["stored_bytes"] <= QUOTA
    task = ended(lab, run)
    assert (task.outcome, task.log.length) == ("succeeded", len(ALL))
    assert b"".join(lab.client.raw_log(task.attempt)) == ALL
    assert task.log.sha256 == hashlib.sha256(ALL).hexdigest()


def test_drop_keeps_what_fits_and_says_what_is_missing(lab: Lab) -> None:
    run, folder = begin(lab, "drop")
    wait_until((folder / "exit").exists, "the task's end, though nobody took its output")
    task = ended(lab, run)
    assert (task.outcome, task.exit_code) == ("succeeded", 0)
    assert task.log.length == len(ALL)
    kept, gaps, at = b"", 0, 0
    while at < len(ALL):
        page = lab.client.log(task.attempt, offset=at)
        for part in page.parts:
            if part.stream == "gap":
                gaps += part.length
            else:
                assert part.data == ALL[at : at + part.length]
                kept += part.data
            at += part.length
    assert gaps > 0
    assert 6 < len(kept) == len(ALL) - gaps <= QUOTA
    assert task.log.sha256 == hashlib.sha256(kept).hexdigest()
    assert b"".join(lab.client.raw_log(task.attempt)) == kept
    shown = lab.cli("runs", "logs", run.id)
    assert shown.stdout.encode() == kept
    assert "bytes of output were dropped by the node]" in shown.stderr
    events = lab.cli("runs", "logs", run.id, "--output", "jsonl").stdout.splitlines()
    parts = [part for line in events for part in json.loads(line)["data"].get("parts", ())]
    assert sum(part["length"] for part in parts if part["stream"] == "gap") == gaps


def test_kill_ends_the_task_and_says_why(lab: Lab) -> None:
    run, folder = begin(lab, "kill")
    wait_until((folder / "exit").exists, "the task's end")
    task = ended(lab, run)
    assert (task.outcome, task.signal, task.reason) == ("failed", 15, QUOTA_KILLED)
    kept = b"".join(lab.client.raw_log(task.attempt))
    assert kept == ALL[: len(kept)]
    assert task.log.sha256 == hashlib.sha256(kept).hexdigest()
    assert QUOTA_KILLED in lab.cli("runs", "show", run.id).stdout
    assert "(quota)" in lab.cli("runs", "why", run.id).stdout


def test_the_flag_reaches_the_record(lab: Lab) -> None:
    lab.start_agent()
    done = lab.cli("run", "--node", "node-1", "--on-quota", "drop", "--output", "json", "--", "id")
    assert json.loads(done.stdout)["spec"]["on_quota"] == "drop"
    done = lab.cli("run", "--node", "node-1", "--output", "json", "--", "id")
    assert "on_quota" not in json.loads(done.stdout)["spec"]  # the default is not said
    assert lab.cli("run", "--node", "node-1", "--on-quota", "wait", "--", "id").returncode == 2
