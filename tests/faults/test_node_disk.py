"""A node's disk is full (P16): a real agent on a small tmpfs that somebody else fills."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetwire.client import Run, RunRequest, Script, Task
from fleetwire.core import limits
from fleetwire.testing.disks import CannotMount, SmallDisk
from fleetwire.testing.lab import Lab, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.slow]

DISK = 16 * limits.MIB  # so its reserve is 1 MiB, and starts need 2 MiB
PRINTING = """
import hashlib, os, sys, time
digest = hashlib.sha256()
def tell(n):
    global digest
    line = b"line %08d of many, padded to some length\\n" % n
    digest.update(line)
    os.write(1, line)
tell(0)
while not os.path.exists(sys.argv[1]): time.sleep(0.01)
for n in range(1, 3000): tell(n)
open(sys.argv[2], "w").write(digest.hexdigest())
"""


class Place:
    """A lab with one agent whose state is on a small disk."""

    def __init__(self, lab: Lab, disk: SmallDisk) -> None:
        self.lab = lab
        self.disk = disk

    def task(self, run: Run) -> Task:
        (task,) = self.lab.client.run(run.id).tasks or []
        return task

    def reason(self, run: Run) -> str:
        return self.task(run).reason or ""

    def shown(self) -> str:
        return self.lab.cli("nodes", "show", "node-1").stdout


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with Lab(tmp_path) as lab:
        state = tmp_path / "agents" / "node-1"
        try:
            disk = SmallDisk(state, DISK).__enter__()
        except CannotMount as error:
            pytest.skip(f"not run: {error}")
        lab.start_server()
        lab.start_agent(prefix=disk.prefix)
        yield Place(lab, disk)
        lab.agents["node-1"].kill()
        lab.kill_leftovers()
        disk.__exit__(None, None, None)


def test_starts_are_refused_with_the_reason_and_go_on_when_there_is_space(place: Place) -> None:
    lab = place.lab
    lab.client.wait(lab.submit("true").id)
    place.disk.fill()
    assert place.disk.left() == 0
    run = lab.submit(lab.ledger.line() + "true\n")
    wait_until(lambda: "disk is full" in place.reason(run), "the refusal on the record")
    assert place.task(run).state == "pending"
    assert "KiB are free, and a start needs 2048 KiB" in place.reason(run)
    assert "waits: the node's disk is full" in lab.cli("runs", "why", run.id).stdout
    wait_until(lambda: "refused: the node's disk is full" in place.shown(), "the node to tell it")
    # A restart of the agent finds what is left of the reserve.
    lab.agents["node-1"].kill()
    lab.start_agent(prefix=place.disk.prefix)
    others = [lab.submit("true") for _ in range(20)]
    wait_until(
        lambda: all("disk is full" in place.reason(other) for other in others),
        "twenty more refusals, each on the node's disk",
    )
    assert lab.ledger.lines() == []
    place.disk.free()
    for one in (run, *others):
        assert lab.client.wait(one.id).outcome == "succeeded"
    assert len(lab.ledger.lines()) == 1
    wait_until(lambda: "disk is full" not in place.shown(), "the node to tell that, too")
    reserve = place.disk.seen(place.disk.path / "disk-reserve")
    wait_until(lambda: reserve.stat().st_blocks * 512 == DISK // 16, "the reserve to be whole")


def test_what_runs_waits_for_space_and_a_stop_is_obeyed(place: Place) -> None:
    lab = place.lab
    go, said = lab.folder / "go", lab.folder / "said"
    spec = Script(PRINTING, "python", (str(go), str(said)), timeout=120)
    runs = [lab.client.create_run(RunRequest(spec, nodes=("node-1",)))]
    runs.append(lab.submit("sleep 1000"))
    wait_until(lambda: all(place.task(run).state == "running" for run in runs), "both to run")
    place.disk.fill()
    go.touch()
    # The stopped one's end is recorded on the full disk, and reaches the server.
    lab.client.stop_run(runs[1].id)
    lab.client.wait(runs[1].id)
    assert place.task(runs[1]).outcome == "canceled"
    # The other one either waits with its output, or had so little that the rest of a block took it.
    place.disk.free()
    lab.client.wait(runs[0].id)
    task = place.task(runs[0])
    assert (task.outcome, task.log.state) == ("succeeded", "sealed")
    assert task.log.sha256 == said.read_text()
    whole = b"".join(lab.client.raw_log(task.attempt))
    assert hashlib.sha256(whole).hexdigest() == said.read_text()


def test_the_end_is_recorded_though_the_disk_stays_full(place: Place) -> None:
    """The output that found no room is counted, and what is stored is whole (P5)."""
    lab = place.lab
    go, said = lab.folder / "go", lab.folder / "said"
    script = PRINTING.replace("range(1, 3000)", "range(1, 300)")
    spec = Script(script, "python", (str(go), str(said)), timeout=120)
    run = lab.client.create_run(RunRequest(spec, nodes=("node-1",)))
    attempt = place.task(run).attempt
    wait_until(lambda: lab.client.log(attempt).length > 0, "its first line")
    place.disk.fill()
    go.touch()
    lab.client.wait(run.id)  # its output fits into the pipe, so it ends
    task = place.task(run)
    assert (task.outcome, task.log.state) == ("succeeded", "sealed")
    length = task.log.length or 0
    lost = 300 * 45 - length
    assert lost > 0
    assert task.reason == f"the disk was full: the last {lost} bytes of output were not stored"
    assert f"{lost} bytes of output were not stored" in lab.cli("runs", "show", run.id).stdout
    whole = b"".join(lab.client.raw_log(task.attempt))
    assert len(whole) == length
    assert task.log.sha256 == hashlib.sha256(whole).hexdigest()
    assert said.exists()
