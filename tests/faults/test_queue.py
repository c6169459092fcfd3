"""Waiting, explaining, refusing: what a person reads when something does not start."""

from __future__ import annotations

import json

import pytest

from fleetwire.client import RunRequest, Script
from fleetwire.testing.lab import Lab, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.slow]


def test_a_full_node_makes_the_second_run_wait_and_why_says_so(lab: Lab) -> None:
    lab.start_agent("node-1", "--max-concurrent", "1")
    first = lab.submit("sleep 600\n", grace=0.5)
    client = lab.client
    wait_until(lambda: client.run(first.id).state == "running", "the first run")
    second = lab.submit("echo mine\n")
    said = wait_until(
        lambda: [line.text for line in client.why(second.id).lines if "capacity" in line.text],
        "the reason",
    )
    assert "node-1 is at capacity (1 of 1 running)" in said[0]
    shown = lab.cli("runs", "why", second.id)
    assert "node-1 is at capacity" in shown.stdout
    client.stop_run(first.id)
    assert client.wait(second.id).outcome == "succeeded"


def test_a_selector_that_matches_nothing_lists_what_exists(lab: Lab) -> None:
    lab.start_agent()
    shown = lab.cli("run", "--on", "os=plan9", "--", "true")
    assert shown.returncode == 2
    assert "os = linux" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_three_agents_run_one_script_each(lab: Lab) -> None:
    for n in (1, 2, 3):
        lab.start_agent(f"node-{n}")
    shown = lab.cli("run", "--on", "os=linux", "--output", "json", "--", "echo", "hi")
    assert shown.returncode == 0, shown.stderr
    run = json.loads(shown.stdout)
    assert [(t["node"], t["outcome"], t["exit_code"]) for t in run["tasks"]] == [
        (f"node-{n}", "succeeded", 0) for n in (1, 2, 3)
    ]
    assert all(t["log"]["length"] == 3 and t["log"]["complete"] for t in run["tasks"])


def test_any_chooses_among_the_matching_nodes(lab: Lab) -> None:
    for n in (1, 2):
        lab.start_agent(f"node-{n}")
    request = RunRequest(Script("true"), selector="os=linux", any=1)
    run = lab.client.wait(lab.client.create_run(request).id)
    (task,) = run.tasks
    assert task.node in {"node-1", "node-2"}


def test_work_for_a_node_that_is_away_waits_and_starts_when_it_is_back(lab: Lab) -> None:
    agent = lab.start_agent()
    agent.kill()
    run = lab.submit(lab.ledger.line())
    lab.start_agent()
    assert lab.client.wait(run.id).outcome == "succeeded"
    assert lab.ledger.starts(run.tasks[0].attempt) == 1
