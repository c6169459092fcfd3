"""The server's disk is full (P15): a real server on a small tmpfs that somebody else fills."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetwire.client import Client, Run, RunRequest, Script, ServerFault, Task
from fleetwire.core import limits
from fleetwire.shim.spool import SpoolReader
from fleetwire.testing.disks import CannotMount, SmallDisk
from fleetwire.testing.lab import Lab, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.slow]

MIB = limits.MIB
DISK = 64 * MIB  # so its reserve is 4 MiB, of which 0.5 are free at any time, and its floor 8 MiB
PRINTING = """
import hashlib, os, sys, time
digest, n = hashlib.sha256(), 0
while not os.path.exists(sys.argv[1]) or n < 200:
    line = b"line %08d of many, padded to some length\\n" % n
    digest.update(line)
    os.write(1, line)
    n += 1
    time.sleep(0.01)
open(sys.argv[2], "w").write(f"{n} {digest.hexdigest()}")
"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path) as made:
        try:
            made.disk = SmallDisk(made.data, DISK).__enter__()
        except CannotMount as error:
            pytest.skip(f"not run: {error}")
        made.start_server()
        yield made
        # Its processes first: the mount may go only when nobody is on it.
        if made.server is not None and made.server.process.poll() is None:
            made.server.kill()
        made.disk.__exit__(None, None, None)


def disk_of(lab: Lab) -> SmallDisk:
    assert lab.disk is not None
    return lab.disk


def task_of(lab: Lab, run: Run) -> Task:
    (task,) = lab.client.run(run.id).tasks or []
    return task


def printing(lab: Lab) -> tuple[Run, Path, Path]:
    """A task that prints until a file is there, and then writes what it printed into another."""
    go, said = lab.folder / "go", lab.folder / "said"
    spec = Script(PRINTING, "python", (str(go), str(said)), timeout=300)
    run = lab.client.create_run(RunRequest(spec, nodes=("node-1",)))
    wait_until(lambda: lab.client.log(task_of(lab, run).attempt).length > 0, "its first output")
    return run, go, said


def refusal(lab: Lab) -> ServerFault | None:
    try:
        lab.submit("true")
    except ServerFault as error:
        return error
    return None


def test_a_full_disk_refuses_what_grows_and_records_what_must_be(lab: Lab) -> None:
    lab.start_agent()
    victim = lab.submit("sleep 1000")
    wait_until(lambda: task_of(lab, victim).state == "running", "the task to run")
    run, go, said = printing(lab)
    taken = disk_of(lab).fill()
    assert taken > DISK // 2
    assert disk_of(lab).left() == 0
    refused = wait_until(lambda: refusal(lab), "new runs to be refused")
    assert refused is not None
    assert (refused.status, refused.code) == (507, "storage-full")
    assert "MiB are free" in refused.detail
    assert "Free some space" in refused.hint

    _records_what_must_be(lab, victim)
    _keeps_the_log_on_the_node(lab, task_of(lab, run).attempt)
    # A machine that wants to join is told so, and waits.
    joining = lab.start_agent("node-2", online=False)
    wait_until(lambda: "answered 507" in joining.log.read_text(), "the new node to be refused")
    assert "MiB are free" in lab.cli("doctor").stdout

    # It starts again on the full disk, by itself and without a hand.
    assert lab.server is not None
    lab.server.kill()
    lab.start_server(ready=False)
    wait_until(lambda: refusal(lab), "new runs to be refused")
    lab.wait_online("node-1")
    assert lab.client.run(victim.id).outcome == "canceled"

    # Space comes back, and all goes on by itself.
    disk_of(lab).free()
    go.touch()
    wait_until(lambda: refusal(lab) is None, "new runs to be taken")
    _has_all_of_the_log(lab, run, said)
    lab.wait_online("node-2")
    wait_until(lambda: "storage" not in lab.cli("doctor").stdout, "the doctor to be content")
    reserve = disk_of(lab).seen(lab.data / "reserve").stat()
    assert reserve.st_size == reserve.st_blocks * 512 == DISK // 16


def _records_what_must_be(lab: Lab, victim: Run) -> None:
    # A stop is recorded, reaches the node, and its end is recorded too.
    lab.client.stop_run(victim.id)
    lab.client.wait(victim.id)
    assert task_of(lab, victim).outcome == "canceled"
    assert "stopped by" in lab.cli("runs", "why", victim.id).stdout
    # Logins work, and reads.
    password = disk_of(lab).seen(lab.data / "admin-password").read_text().strip()
    with Client(lab.url) as client:
        client.login("admin", password)
        assert client.me().name == "admin"
    assert [node.link for node in lab.client.nodes()] == ["online"]


def _keeps_the_log_on_the_node(lab: Lab, attempt: str) -> None:
    length = lab.client.log(attempt).length
    spool = SpoolReader(str(lab.folder / "agents" / "node-1" / "spool" / attempt))
    wait_until(lambda: spool.length() > length + 4096, "output to gather on the node")
    spool.close()
    assert lab.client.log(attempt).length == length


def _has_all_of_the_log(lab: Lab, run: Run, said: Path) -> None:
    lab.client.wait(run.id)
    task = task_of(lab, run)
    lines, digest = said.read_text().split()
    assert (task.outcome, task.log.state, task.log.sha256) == ("succeeded", "sealed", digest)
    whole = b"".join(lab.client.raw_log(task.attempt))
    assert hashlib.sha256(whole).hexdigest() == digest
    assert whole.count(b"\n") == int(lines)
