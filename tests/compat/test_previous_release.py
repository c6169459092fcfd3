"""Server N with agents N-1, the reverse, and each taking over from the other (promise P24)."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from tests.compat.conftest import Release

from fleetwire.client import Run
from fleetwire.testing.lab import Lab, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.slow]

COUNTING = "for i in $(seq 1 30); do echo line $i; echo e$i >&2; sleep 0.1; done\nexit 7\n"
WANTED = {f"line {n}" for n in range(1, 31)} | {f"e{n}" for n in range(1, 31)}
BIG = """for i in $(seq 1 200); do head -c 99999 /dev/zero | tr '\\0' y; echo; done\n"""
BIG_SHA256 = hashlib.sha256((b"y" * 99_999 + b"\n") * 200).hexdigest()


def code_of(pid: int) -> list[Path]:
    """Return which of our packages a living process has loaded from where."""
    environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return [Path(v[11:].decode()) for v in environ if v.startswith(b"PYTHONPATH=")]


def begin(lab: Lab) -> tuple[str, str]:
    """Start the counting script; return run and attempt once it is in the middle."""
    run = lab.submit(lab.ledger.line() + COUNTING)
    attempt = run.tasks[0].attempt
    wait_until(lambda: b"".join(lab.client.raw_log(attempt)).count(b"\n") >= 10, "some lines")
    return run.id, attempt


def assert_counted(lab: Lab, run_id: str, attempt: str) -> None:
    (task,) = lab.client.wait(run_id).tasks
    raw = b"".join(lab.client.raw_log(attempt))
    assert sorted(raw.decode().splitlines()) == sorted(WANTED)
    assert (task.outcome, task.exit_code) == ("failed", 7)
    assert task.log.complete
    assert task.log.sha256 == hashlib.sha256(raw).hexdigest()
    assert lab.ledger.starts(attempt) == 1


def assert_all_works(lab: Lab) -> None:
    """What a person does: a run to its end, a big log, a stop."""
    assert_counted(lab, *begin(lab))
    (big,) = lab.client.wait(lab.submit(BIG).id).tasks
    assert (big.exit_code, big.log.sha256, big.log.complete) == (0, BIG_SHA256, True)
    stopped = lab.submit("trap '' TERM; echo up; while :; do sleep 1; done\n", grace=0.5)
    attempt = stopped.tasks[0].attempt
    wait_until(lambda: b"".join(lab.client.raw_log(attempt)), "it to be up")
    lab.client.stop_run(stopped.id)
    ended: Run = lab.client.wait(stopped.id)
    assert ended.outcome == "canceled"
    assert not lab.processes_of(attempt)


def test_the_previous_agent_with_this_server(lab: Lab, previous: Release) -> None:
    lab.start_server()
    agent = lab.start_agent(env=previous.env)
    assert code_of(agent.pid) == [previous.folder]
    (node,) = lab.client.nodes()
    assert node.agent_version == previous.version
    assert_all_works(lab)


def test_this_agent_with_the_previous_server(lab: Lab, previous: Release) -> None:
    server = lab.start_server(env=previous.env)
    assert code_of(server.pid) == [previous.folder]
    lab.start_agent()
    assert_all_works(lab)


def test_the_server_is_updated_in_the_middle(lab: Lab, previous: Release) -> None:
    """On the same data: what was stored before is read after, and what runs goes on."""
    server = lab.start_server(env=previous.env)
    lab.start_agent(env=previous.env)
    done = begin(lab)
    assert_counted(lab, *done)
    living = begin(lab)
    server.kill()
    lab.start_server()
    assert_counted(lab, *living)
    assert_counted(lab, *done)
    assert_all_works(lab)


def test_the_agent_is_updated_in_the_middle_and_taken_back(lab: Lab, previous: Release) -> None:
    """On the same state, under a living task; its spawner and shim are those of before."""
    lab.start_server()
    agent = lab.start_agent(env=previous.env)
    living = begin(lab)
    agent.kill()
    agent = lab.start_agent()
    assert_counted(lab, *living)
    assert_all_works(lab)
    living = begin(lab)
    agent.kill()
    lab.start_agent(env=previous.env)
    assert_counted(lab, *living)
    assert_all_works(lab)
