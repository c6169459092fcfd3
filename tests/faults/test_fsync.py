"""A disk that answers EIO to fsync (P15): nothing is called durable that may not be, and a failed
fsync is never tried again, because the kernel may have dropped what it could not write.
"""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path

import pytest

from fleetwire.client import Client, ClientError, Run, RunRequest, Script, Task
from fleetwire.testing.lab import Lab, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.slow]


def failing(lab: Lab, call: str, when: str, *paths: Path) -> tuple[str, ...]:
    """Words before a command, whose `when`th call of this kind (on these paths) fails with EIO."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("not run: there is no program strace (Debian: apt-get install strace)")
    where = [word for path in paths for word in ("-P", str(path))]
    inject = f"inject={call}:error=EIO:when={when}"
    # -D: what is traced keeps the process id that we know.
    quiet = ("-D", "-f", "-qq", "--seccomp-bpf", "-o", str(lab.folder / "strace"))
    return (strace, *quiet, *where, "-e", f"trace={call}", "-e", inject, "--")


def injected(lab: Lab) -> list[str]:
    return [line for line in (lab.folder / "strace").read_text().splitlines() if "INJECTED" in line]


def task_of(lab: Lab, run: Run) -> Task:
    (task,) = lab.client.run(run.id).tasks or []
    return task


def submit_until_one_fails(lab: Lab) -> tuple[list[str], str]:
    """The ids of the runs that were acknowledged, and the name of the one that was not."""
    acknowledged: list[str] = []
    with Client(lab.url, lab.env["FLEETWIRE_TOKEN"], patience=0) as client:
        while True:
            name = f"run {len(acknowledged)}"
            request = RunRequest(Script("true"), nodes=("node-1",), name=name)
            try:
                acknowledged.append(client.create_run(request, idempotency_key=name).id)
            except ClientError:
                return acknowledged, name


def test_the_server_ends_and_its_restart_knows_what_was_acknowledged(lab: Lab) -> None:
    lab.start_agent()
    assert lab.server is not None
    lab.server.stop()
    wal = lab.data / "fleetwire.db-wal"
    lab.start_server(prefix=failing(lab, "fdatasync,fsync", "30+", wal))
    acknowledged, name = submit_until_one_fails(lab)
    assert lab.server.process.wait(20) == 1
    assert len(injected(lab)) == 1  # it is not tried again
    assert "SQLITE_IOERR_FSYNC" in lab.server.log.read_text()

    lab.start_server()
    for run in acknowledged:
        assert lab.client.wait(run).outcome == "succeeded"
    # What was not acknowledged is there once or not at all; the key makes it once.
    again = lab.client.create_run(
        RunRequest(Script("true"), nodes=("node-1",), name=name), idempotency_key=name
    )
    assert lab.client.wait(again.id).outcome == "succeeded"
    names = [run.name for run in lab.client.runs()]
    assert len(names) == len(set(names)) == len(acknowledged) + 1


def test_a_log_store_that_cannot_sync_ends_the_server_and_the_node_sends_again(lab: Lab) -> None:
    lab.start_agent()
    assert lab.server is not None
    lab.server.stop()
    segments = lab.data / "logs"
    from_now = [segments / f"{day}.db-wal" for day in days()]
    lab.start_server(prefix=failing(lab, "fdatasync,fsync", "3+", *from_now))
    run = lab.submit("for i in $(seq 200); do echo line $i; sleep 0.01; done")
    assert lab.server.process.wait(30) == 1
    # Where there is a second one, it is SQLite's own as the file is closed, of frames that were
    # durable before: nothing is acknowledged after the first.
    assert 1 <= len(injected(lab)) <= 2
    lab.start_server()
    assert lab.client.wait(run.id).outcome == "succeeded"
    task = task_of(lab, run)
    assert task.log.state == "sealed"
    expected = b"".join(b"line %d\n" % n for n in range(1, 201))
    assert b"".join(lab.client.raw_log(task.attempt)) == expected


def days() -> list[str]:
    """Today and tomorrow, as segments are named: midnight may pass."""
    now = dt.datetime.now(dt.UTC)
    return [(now + dt.timedelta(days=n)).date().isoformat() for n in (0, 1)]


def test_output_that_could_not_be_synced_is_said_with_the_end(lab: Lab) -> None:
    enrolled(lab)
    lab.start_agent(prefix=failing(lab, "fdatasync", "1+"))
    run = lab.submit("echo one; sleep 1.5; echo two; sleep 1")
    lab.client.wait(run.id)
    task = task_of(lab, run)
    assert (task.outcome, task.log.state) == ("succeeded", "sealed")
    assert task.reason == ("the output may be incomplete after a power loss: Input/output error")
    assert injected(lab)


def test_an_end_that_could_not_be_synced_is_written_anew_by_the_spawner(lab: Lab) -> None:
    """The shim cannot call its end durable and goes; who finds the record writes all of it again
    before it counts, so no fsync is repeated on what a failed one may have dropped."""
    enrolled(lab)
    # Of a shim: `epoch`, the folder, the folder of folders; the fourth is the end.
    lab.start_agent(prefix=failing(lab, "fsync", "4"))
    run = lab.submit("echo done; exit 3")
    lab.client.wait(run.id)
    task = task_of(lab, run)
    assert len(injected(lab)) >= 1
    assert (task.outcome, task.exit_code, task.log.state) == ("failed", 3, "sealed")


def enrolled(lab: Lab) -> None:
    """Enrol the node, and end all of it: agent and spawner start anew, traced."""
    agent = lab.start_agent()
    spawner = lab.folder / "agents" / "node-1" / "spawner.json"
    lab.client.wait(lab.submit("true").id)
    before = lab.spawner()
    agent.stop()
    wait_until(lambda: not before.is_running(), "the spawner to leave")
    spawner.unlink(missing_ok=True)
