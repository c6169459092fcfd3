"""A backup put back under real agents (P26): nothing runs twice, and what ended comes in."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fleetwire.client import Run, RunRequest, Script, Task
from fleetwire.testing.lab import Lab, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.slow]


def submit(lab: Lab, script: str, **where: object) -> Run:
    spec = Script(lab.ledger.line() + script, timeout=120.0)
    return lab.client.create_run(RunRequest(spec, **where))  # type: ignore[arg-type]  # a test's words


def only(run: Run) -> Task:
    (task,) = run.tasks or []
    return task


def started(lab: Lab, run: Run) -> None:
    wait_until(lambda: lab.ledger.starts(only(run).attempt) == 1, "the start")


def put_back(lab: Lab, backup: Path, *flags: str) -> None:
    """Lose everything the server has, and put the backup back."""
    assert lab.server is not None
    lab.server.kill()
    shutil.rmtree(lab.data)
    done = lab.cli("server", "restore", "--from", str(backup), "--data", str(lab.data), *flags)
    assert done.returncode == 0, done.stderr
    lab.start_server()


def test_what_ran_since_the_backup_never_runs_again(lab: Lab) -> None:
    lab.start_agent("node-1", "--max-concurrent", "3")
    ended = submit(lab, "echo before\n", nodes=("node-1",))
    lab.client.wait(ended.id)
    running = submit(lab, "echo one; sleep 6; echo two; exit 5\n", nodes=("node-1",))
    started(lab, running)
    # Waiting when the backup is made: bound to a node, and for any.
    lab.agents["node-1"].kill()
    bound = submit(lab, "echo bound; exit 3\n", nodes=("node-1",))
    free = submit(lab, "sleep 6; echo free\n", selector="os=linux", any=1)
    backup = lab.folder / "backup"
    done = lab.cli("server", "backup", "--to", str(backup), "--data", str(lab.data))
    assert done.returncode == 0, done.stderr
    # What the record will not know: `bound` ends and is sealed, `free` runs, `later` is new.
    lab.start_agent("node-1", "--max-concurrent", "3")
    later = submit(lab, "echo later\n", nodes=("node-1",))
    assert only(lab.client.wait(bound.id)).exit_code == 3
    lab.client.wait(later.id)
    started(lab, free)
    put_back(lab, backup)
    lab.wait_online("node-1")
    wanted = {running.id: 5, bound.id: 3, free.id: 0}
    for run_id, code in wanted.items():
        task = only(lab.client.wait(run_id))
        assert task.exit_code == code, task
        assert task.log.complete
    assert b"".join(lab.client.raw_log(only(bound).attempt)) == b"bound\n"
    assert b"".join(lab.client.raw_log(only(running).attempt)) == b"one\ntwo\n"
    for run in (ended, running, bound, free, later):
        assert lab.ledger.starts(only(run).attempt) == 1
    # The record does not know it; its folder stays on the node.
    assert later.id not in {run.id for run in lab.client.runs()}
    after = submit(lab, "echo after\n", nodes=("node-1",))
    assert lab.client.wait(after.id).outcome == "succeeded"


def test_what_nobody_speaks_of_is_lost_and_never_started_again(lab: Lab) -> None:
    lab.start_agent("node-1")
    lab.agents["node-1"].kill()
    run = submit(lab, "echo hello\n", nodes=("node-1",))
    backup = lab.folder / "backup"
    assert lab.cli("server", "backup", "--to", str(backup), "--data", str(lab.data)).returncode == 0
    lab.start_agent("node-1")
    lab.client.wait(run.id)
    # Longer after its end, the node has thrown the sealed folder away.
    lab.agents["node-1"].kill()
    shutil.rmtree(lab.folder / "agents" / "node-1" / "spool" / only(run).attempt)
    put_back(lab, backup)
    why = lab.cli("runs", "why", run.id).stdout
    assert "held until node-1 has said whether it ran since the backup" in why
    lab.start_agent("node-1")
    task = only(lab.client.wait(run.id))
    assert task.outcome == "lost"
    assert task.reason is not None
    assert "restored from a backup" in task.reason
    assert lab.ledger.starts(task.attempt) == 1
    # A node that was never asked about anything works as before.
    after = submit(lab, "echo after\n", nodes=("node-1",))
    assert lab.client.wait(after.id).outcome == "succeeded"


def test_a_planned_move_goes_on_where_it_was(lab: Lab) -> None:
    lab.start_agent("node-1")
    lab.agents["node-1"].kill()
    run = submit(lab, "echo hello\n", nodes=("node-1",))
    assert lab.server is not None
    lab.server.stop()
    backup = lab.folder / "backup"
    assert lab.cli("server", "backup", "--to", str(backup), "--data", str(lab.data)).returncode == 0
    put_back(lab, backup, "--nothing-since")
    lab.start_agent("node-1")
    assert lab.client.wait(run.id).outcome == "succeeded"
    assert lab.ledger.starts(only(run).attempt) == 1
    again = lab.cli("server", "restore", "--from", str(backup), "--data", str(lab.data))
    assert again.returncode != 0
    assert "Another server uses" in again.stderr
