"""An old copy of the server's data is put back (P26): what nodes have trimmed since is gone."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from fleetwire.client import Run, RunRequest, Script, Task
from fleetwire.testing.lab import Lab, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.slow]

FIRST = b"ready\n"
MIDDLE = b"".join(b"%07d\n" % n * 128 for n in range(640))
END = b"the end\n"
IN_PARTS = """
import os, sys, time
def wait(name):
    while not os.path.exists(os.path.join(sys.argv[1], name)): time.sleep(0.01)
os.write(1, b"ready\\n")
wait("go")
for n in range(640): os.write(1, b"%07d\\n" % n * 128)
wait("end")
os.write(1, b"the end\\n")
"""


def begin(lab: Lab) -> tuple[Run, str]:
    lab.start_agent("node-1", "--spool-quota-bytes", str(1 << 20))  # so a piece has 256 KiB
    spec = Script(IN_PARTS, "python", (str(lab.folder),), timeout=120)
    run = lab.client.create_run(RunRequest(spec, nodes=("node-1",)))
    attempt = task_of(lab, run).attempt
    wait_until(lambda: lab.client.log(attempt).length == len(FIRST), "its first line")
    return run, attempt


def task_of(lab: Lab, run: Run) -> Task:
    (task,) = lab.client.run(run.id).tasks or []
    return task


def stop_server(lab: Lab) -> None:
    assert lab.server is not None
    assert lab.server.stop() == 0


def put_back(lab: Lab, copy: Path) -> None:
    """Replace the data with its older copy, and start."""
    stop_server(lab)
    shutil.rmtree(lab.data)
    copy.rename(lab.data)
    lab.start_server()


@pytest.mark.parametrize("ended", [False, True])
def test_a_log_whose_middle_exists_nowhere_any_more_settles(lab: Lab, ended: bool) -> None:
    run, attempt = begin(lab)
    stop_server(lab)
    copy = lab.folder / "copy"
    shutil.copytree(lab.data, copy)
    lab.start_server()
    (lab.folder / "go").touch()
    spool = lab.folder / "agents" / "node-1" / "spool" / attempt
    length = len(FIRST + MIDDLE)
    wait_until(lambda: lab.client.log(attempt).length == length, "the middle on the server")
    wait_until(lambda: not (spool / f"output.{0:020d}").exists(), "the node to trim its spool")
    if ended:
        stop_server(lab)
        (lab.folder / "end").touch()
        wait_until((spool / "exit").exists, "the end, which the server has not heard of")
        lab.start_server()
        wait_until(lambda: lab.client.run(run.id).state == "ended", "the end on the record")
    first = min(int(path.name.partition(".")[2]) for path in spool.glob("output.*"))
    put_back(lab, copy)
    (lab.folder / "end").touch()
    lab.client.wait(run.id)
    task = task_of(lab, run)
    whole = FIRST + MIDDLE + END
    assert (task.outcome, task.log.state, task.log.length) == ("succeeded", "missing", len(whole))
    why = lab.cli("runs", "why", run.id).stdout
    assert f"the log is missing from byte {len(FIRST)} to byte {first}" in why
    kept = FIRST + whole[first:]
    assert b"".join(lab.client.raw_log(attempt)) == kept
    assert task.log.sha256 == hashlib.sha256(kept).hexdigest()
    gap = lab.client.log(attempt, offset=len(FIRST)).parts[0]
    assert (gap.stream, gap.length) == ("gap", first - len(FIRST))
