"""Given up, and not gone: late exits, and retries after a loss (P3, architecture 5.5)."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing

import psutil
import pytest

from fleetwire.client import Run, RunRequest, Script, Task
from fleetwire.core.retry import Retry
from fleetwire.testing.lab import Lab, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.slow]


def only(run: Run) -> Task:
    (task,) = run.tasks or []
    return task


def submit(lab: Lab, script: str, *, timeout: float = 3.0, **fields: object) -> Run:
    spec = Script(lab.ledger.line() + script, timeout=timeout, grace=0.5)
    fields = {"nodes": ("node-1",), "lost_after": 0.0, **fields}
    return lab.client.create_run(RunRequest(spec, **fields))  # type: ignore[arg-type]  # a test's words


def wait_lost(lab: Lab, run: Run) -> None:
    wait_until(lambda: lab.client.run(run.id).outcome == "lost", "lost")


def wait_late_exit(lab: Lab, run: Run) -> Task:
    def late() -> Task | None:
        task = only(lab.client.run(run.id))
        return task if task.late_exit is not None and task.log.complete else None

    return wait_until(late, "the late exit")  # type: ignore[return-value]  # it waits until there is one


def assert_shown(lab: Lab, run: Run, exit_code: int) -> None:
    """Every run shown lost whose ledger shows an end shows its late exit."""
    task = wait_late_exit(lab, run)
    assert task.outcome == "lost"
    assert task.late_exit is not None
    assert task.late_exit.exit_code == exit_code
    assert lab.ledger.lines() == [task.attempt, f"end {task.attempt}"]
    shown = lab.cli("runs", "show", run.id).stdout
    assert f"its end came after it was lost: exit {exit_code}" in shown
    assert f"late exit: ended with exit code {exit_code}" in lab.cli("runs", "why", run.id).stdout
    assert b"".join(lab.client.raw_log(task.attempt)) == b"one\ntwo\n"


def test_an_agent_that_comes_back_brings_the_late_exit(lab: Lab) -> None:
    agent = lab.start_agent()
    end = lab.ledger.line("end $FLEETWIRE_ATTEMPT")
    run = submit(lab, f"echo one; sleep 1.5; echo two\n{end}exit 5\n")
    wait_until(lab.ledger.lines, "the start")
    agent.kill()
    wait_lost(lab, run)
    assert lab.client.wait(run.id).outcome == "lost"  # and nobody waits for its log
    lab.start_agent()
    assert_shown(lab, run, 5)


def test_a_silence_on_the_same_link_ends_with_the_late_exit(lab: Lab) -> None:
    agent = lab.start_agent()
    end = lab.ledger.line("end $FLEETWIRE_ATTEMPT")
    run = submit(lab, f"echo one; sleep 1.5; echo two\n{end}exit 6\n")
    wait_until(lambda: only(lab.client.run(run.id)).state == "running", "the start")
    agent.process.send_signal(signal.SIGSTOP)
    wait_lost(lab, run)
    agent.process.send_signal(signal.SIGCONT)
    assert_shown(lab, run, 6)


def test_a_lost_task_runs_elsewhere_and_the_old_one_is_stopped_at_once(lab: Lab) -> None:
    """Its node was silent for long by the record's clock; the link never broke."""
    lab.start_agent("node-1")
    run = submit(
        lab,
        '[ "$FLEETWIRE_NODE" = node-2 ] && exit 0\nsleep 60\n',
        timeout=90.0,
        nodes=None,
        selector="os=linux",
        any=1,
        retry=Retry(on_lost=True, backoff=0.0),
    )
    wait_until(lambda: only(lab.client.run(run.id)).state == "running", "the start")
    first = only(lab.client.run(run.id)).attempt
    lab.start_agent("node-2")
    (agent,) = [d for name, d in lab.agents.items() if name == "node-1"]
    agent.process.send_signal(signal.SIGSTOP)
    with closing(sqlite3.connect(lab.data / "fleetwire.db", timeout=30)) as record, record:
        record.execute("UPDATE attempts SET lost_after = 1 WHERE id = ?", (first,))
    wait_until(lambda: only(lab.client.run(run.id)).outcome == "succeeded", "the retry")
    living = [process.pid for process in lab.processes_of(first)]
    assert living
    agent.process.send_signal(signal.SIGCONT)
    wait_until(lambda: not lab.processes_of(first), "its processes to be stopped")
    task = only(lab.client.run(run.id))
    assert (task.number, task.node) == (2, "node-2")

    def ended() -> bool:
        (earlier,) = only(lab.client.run(run.id)).earlier
        return earlier.late_exit is not None and earlier.late_exit.cause == "stopped"

    wait_until(ended, "the late exit of the first attempt")
    assert lab.ledger.starts(first) == 1
    assert lab.ledger.starts(task.attempt) == 1
    assert os.getpid() not in living
    assert not any(psutil.pid_exists(pid) for pid in living)


def test_failures_are_tried_again_as_often_as_asked(lab: Lab) -> None:
    lab.start_agent()
    done = lab.cli(
        "run", "--node", "node-1", "--retries", "2", "--retry-after", "0.1s", "--",
        f"echo $FLEETWIRE_ATTEMPT >> {lab.ledger.path}; wc -l < {lab.ledger.path}; "
        f"[ $(wc -l < {lab.ledger.path}) -ge 3 ] && exit 0; exit 9",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", "2", "3"]
    assert "attempt 3 follows" in done.stderr
    (run,) = list(lab.client.runs())
    task = only(lab.client.run(run.id))
    attempts = [*task.earlier, task]
    assert lab.ledger.lines() == [one.attempt for one in attempts]
    assert [one.exit_code for one in attempts] == [9, 9, 0]
    assert [one.number for one in attempts] == [1, 2, 3]
    shown = lab.cli("runs", "show", run.id).stdout
    assert all(one.attempt in shown for one in attempts)
    logs = lab.cli("runs", "logs", run.id, "--attempt", "2")
    assert logs.stdout.split() == ["2"]
    assert lab.cli("runs", "logs", run.id).stdout.split() == ["1", "2", "3"]
