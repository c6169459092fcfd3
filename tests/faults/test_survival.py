"""Kills in the middle of work: nothing lost, nothing twice, the exact exit code (P2, P5-P8)."""

from __future__ import annotations

import hashlib
import signal

import pytest

from fleetwire.testing.lab import Lab, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.slow]

LINES = 30
COUNTING = "for i in $(seq 1 30); do echo line $i; sleep 0.2; done\nexit 7\n"
WANTED = "".join(f"line {n}\n" for n in range(1, LINES + 1)).encode()


def lines_so_far(lab: Lab, attempt: str) -> int:
    return b"".join(part.data for part in lab.client.log(attempt).parts).count(b"\n")


def counting_run(lab: Lab) -> tuple[str, str]:
    """Submit the counting script, wait until it is in the middle; return run and attempt."""
    run = lab.submit(lab.ledger.line() + COUNTING)
    attempt = run.tasks[0].attempt
    wait_until(lambda: lines_so_far(lab, attempt) >= 5, "some lines")
    return run.id, attempt


def assert_exact(lab: Lab, run_id: str, attempt: str) -> None:
    run = lab.client.wait(run_id)
    (task,) = run.tasks
    raw = b"".join(lab.client.raw_log(attempt))
    assert raw == WANTED
    assert (task.outcome, task.exit_code) == ("failed", 7)
    assert task.log.complete
    assert task.log.sha256 == hashlib.sha256(WANTED).hexdigest()
    assert lab.ledger.starts(attempt) == 1
    assert not lab.processes_of(attempt)


def test_kill_9_of_the_agent_in_the_middle(lab: Lab) -> None:
    agent = lab.start_agent()
    run_id, attempt = counting_run(lab)
    agent.kill()
    lab.start_agent()
    assert_exact(lab, run_id, attempt)


def test_kill_9_of_the_agent_again_and_again(lab: Lab) -> None:
    lab.start_agent()
    run_id, attempt = counting_run(lab)
    for _ in range(4):
        lab.agents["node-1"].kill()
        lab.start_agent()
    assert_exact(lab, run_id, attempt)


def test_kill_9_of_the_server_while_the_cli_waits(lab: Lab) -> None:
    lab.start_agent()
    script = lab.folder / "script.sh"
    script.write_text(lab.ledger.line() + COUNTING)
    cli = lab.cli_begin("run", "--node", "node-1", "--script", str(script))
    attempt = wait_until(lambda: next(iter(lab.ledger.lines()), ""), "the start")
    wait_until(lambda: lines_so_far(lab, attempt) >= 5, "some lines")
    assert lab.server is not None
    lab.server.kill()
    lab.start_server()
    out, _ = cli.communicate(timeout=60)
    assert out == WANTED
    assert cli.returncode == 7
    (run,) = list(lab.client.runs())
    assert_exact(lab, run.id, attempt)


def test_kill_9_of_the_spawner(lab: Lab) -> None:
    lab.start_agent()
    run_id, attempt = counting_run(lab)
    lab.spawner().send_signal(signal.SIGKILL)
    assert_exact(lab, run_id, attempt)
    again = lab.client.wait(lab.submit("echo once more").id)
    assert again.outcome == "succeeded"


def test_kill_9_of_agent_and_spawner_together(lab: Lab) -> None:
    agent = lab.start_agent()
    run_id, attempt = counting_run(lab)
    lab.spawner().send_signal(signal.SIGKILL)
    agent.kill()
    lab.start_agent()
    assert_exact(lab, run_id, attempt)


def test_kill_9_of_everything_but_the_task(lab: Lab) -> None:
    agent = lab.start_agent()
    run_id, attempt = counting_run(lab)
    assert lab.server is not None
    lab.server.kill()
    lab.spawner().send_signal(signal.SIGKILL)
    agent.kill()
    lab.start_server()
    lab.start_agent()
    assert_exact(lab, run_id, attempt)


def test_a_task_that_ends_while_its_agent_is_dead(lab: Lab) -> None:
    agent = lab.start_agent()
    run = lab.submit(lab.ledger.line() + "echo before; sleep 1; echo after; exit 9\n")
    attempt = run.tasks[0].attempt
    wait_until(lambda: lab.ledger.starts(attempt), "the start")
    agent.kill()
    wait_until(lambda: not lab.processes_of(attempt), "the end of the task")
    lab.start_agent()
    (task,) = lab.client.wait(run.id).tasks
    assert (task.outcome, task.exit_code) == ("failed", 9)
    assert b"".join(lab.client.raw_log(attempt)) == b"before\nafter\n"


def test_a_deadline_is_kept_while_the_agent_is_dead(lab: Lab) -> None:
    agent = lab.start_agent()
    run = lab.submit(lab.ledger.line() + "echo begun; sleep 600\n", timeout=2)
    attempt = run.tasks[0].attempt
    wait_until(lambda: lab.ledger.starts(attempt), "the start")
    agent.kill()
    wait_until(lambda: not lab.processes_of(attempt), "the deadline", within=20)
    lab.start_agent()
    (task,) = lab.client.wait(run.id).tasks
    assert task.outcome == "timed_out"
    assert task.duration is not None
    assert 2 <= task.duration < 15


def test_kill_9_of_the_shim_leaves_no_unsupervised_task(lab: Lab) -> None:
    lab.start_agent()
    run_id, attempt = counting_run(lab)
    (child,) = [p for p in lab.spawner().children() if p.status() != "zombie"]
    child.kill()
    (task,) = lab.client.wait(run_id).tasks
    assert (task.outcome, task.reason) == ("lost", "shim died")
    assert not lab.processes_of(attempt)
    stored = b"".join(lab.client.raw_log(attempt))
    assert WANTED.startswith(stored)
    assert stored.count(b"\n") >= 5


STUBBORN = """
trap '' TERM
python3 -c '
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    os._exit(0)
time.sleep(600)
' &
echo ready
while :; do sleep 1; done
"""


def test_a_stop_leaves_nothing_alive(lab: Lab) -> None:
    lab.start_agent()
    run = lab.submit(STUBBORN, grace=1)
    attempt = run.tasks[0].attempt
    # sh, its sleep, python, and the grandchild that has left session and parent
    wait_until(lambda: len(lab.processes_of(attempt)) >= 4, "the whole tree")
    seen_canceled_with: list[int] = []
    lab.client.stop_run(run.id, grace=1)
    client = lab.client
    task = wait_until(
        lambda: next((t for t in client.run(run.id).tasks if t.outcome), None), "the outcome"
    )
    seen_canceled_with.append(len(lab.processes_of(attempt)))
    assert task.outcome == "canceled"
    assert seen_canceled_with == [0]


def test_a_stop_while_the_agent_is_dead_is_kept(lab: Lab) -> None:
    agent = lab.start_agent()
    run = lab.submit(lab.ledger.line() + "sleep 600\n")
    attempt = run.tasks[0].attempt
    wait_until(lambda: lab.ledger.starts(attempt), "the start")
    agent.kill()
    assert lab.client.stop_run(run.id, grace=0.5).wish == "stop"
    lab.start_agent()
    (task,) = lab.client.wait(run.id).tasks
    assert task.outcome == "canceled"
    assert not lab.processes_of(attempt)
