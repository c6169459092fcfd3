from __future__ import annotations

from typing import Any

import pytest

from fleetwire.cli.outcome import exit_code, progress, summary
from fleetwire.client import Task


def task(index: int = 0, **values: Any) -> Task:
    values.setdefault("state", "exited" if values.get("outcome") else "running")
    return Task(id=f"t{index}", index=index, attempt=f"a{index}", node=f"n{index}", **values)


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"outcome": "succeeded", "exit_code": 0}, 0),
        ({"outcome": "failed", "exit_code": 7}, 7),
        ({"outcome": "failed", "signal": 9}, 137),
        ({"outcome": "failed"}, 1),
        ({"outcome": "timed_out", "signal": 15}, 124),
        ({"outcome": "canceled"}, 125),
        ({"outcome": "lost"}, 5),
        ({"outcome": "refused"}, 5),
        ({"outcome": "expired"}, 5),
    ],
)
def test_one_task_gives_its_own_code(values: dict[str, Any], code: int) -> None:
    assert exit_code([task(**values)]) == code


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        (["succeeded", "succeeded"], 0),
        (["succeeded", "failed"], 1),
        (["succeeded", "timed_out"], 1),
        (["succeeded", "lost"], 5),
        (["expired", "refused"], 5),
        (["failed", "lost"], 1),
        (["canceled", "succeeded"], 1),
    ],
)
def test_several_tasks_give_the_runs_code(outcomes: list[str], code: int) -> None:
    tasks = [task(index, outcome=one, exit_code=0) for index, one in enumerate(outcomes)]
    assert exit_code(tasks) == code


def test_a_summary_names_what_did_not_succeed() -> None:
    assert summary([task(outcome="failed", exit_code=3)]) == []
    assert summary([task(outcome="lost", reason="node rebooted")]) == ["n0: lost: node rebooted"]
    full = "the disk was full: the last 3 bytes of output were not stored"
    assert summary([task(outcome="succeeded", exit_code=0, reason=full)]) == [
        f"n0: succeeded: {full}"
    ]
    assert summary([task(0, outcome="succeeded"), task(1, outcome="failed", exit_code=4)]) == [
        "n1: failed (exit 4)",
        "2 tasks: 1 succeeded, 1 failed",
    ]


def test_progress_says_what_waits_and_why_and_fits() -> None:
    tasks = {
        "a": task(0, outcome="succeeded"),
        "b": task(1),
        "c": task(2, outcome="failed"),
        "d": task(3, state="pending", reason="local-1 is full\x1b[2J"),
    }
    line = progress(tasks, 200)
    assert line == r"1/4 done, 1 running, 1 not succeeded, 1 waiting: local-1 is full\x1b[2J"
    assert len(progress(tasks, 30)) == 29
