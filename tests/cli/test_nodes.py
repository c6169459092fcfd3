"""Nodes, their stories and timelines from the command line, against a real system."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import System

pytestmark = pytest.mark.slow


def wait_until(holds: Callable[[], bool], patience: float = 30.0) -> None:
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, f"not within {patience} s"
        time.sleep(0.05)


def begin(system: System, node: str, script: str) -> str:
    """Start a run on a node; return its id once it runs."""
    run: str = system.json("run", "--node", node, "--detach", "--", script)["id"]
    wait_until(lambda: system.json("runs", "show", run)["state"] == "running")
    return run


def test_a_drain_waits_for_what_runs_and_moves_what_does_not(system: System) -> None:
    run = begin(system, "local-2", "sleep 3")
    drain = system("nodes", "drain", "local-2")
    assert drain.returncode == 0
    assert drain.stdout == b"Node local-2 is draining, 1 of its attempts are left.\n"
    assert b"draining (1 left)" in system("nodes", "show", "local-2").stdout
    # What any node may do is done by another one meanwhile.
    other = system.json("run", "--on", "os=linux", "--any", "1", "--", "true")
    assert other["tasks"][0]["node"] == "local-1"
    waited = system("nodes", "drain", "local-2", "--wait")
    assert waited.stdout == b"Node local-2 is drained.\n"
    assert system.json("runs", "show", run)["outcome"] == "succeeded"
    assert system("nodes", "resume", "local-2").stdout == b"Node local-2 is active.\n"
    story = system("nodes", "why", "local-2").stdout.decode()
    assert "is now draining, by admin" in story
    assert "is now drained: it has confirmed it, and nothing runs there" in story
    assert system("run", "--node", "local-2", "--", "true").returncode == 0


def test_a_killed_agent_is_told_in_the_nodes_story_and_the_runs_timeline(
    own_system: System,
) -> None:
    run = begin(own_system, "local-1", "sleep 4")
    before = len(own_system.json("nodes", "why", "local-1")["items"])
    os.kill(own_system.child("agent"), signal.SIGKILL)
    wait_until(lambda: len(own_system.json("nodes", "why", "local-1")["items"]) > before)
    wait_until(lambda: own_system.json("runs", "show", run)["state"] == "ended")
    timeline = own_system("runs", "show", run, "--timeline").stdout.decode()
    lines = [line.split("  ", 2) for line in timeline.splitlines()]
    places = [place.strip() for _, place, _ in lines]
    texts = [text.strip() for _, _, text in lines]
    assert texts[0] == "submitted by admin"
    assert places[1] == "local-1 #0"
    assert texts[1].startswith("assigned with epoch")
    assert texts[2] == "started"
    back = texts.index(next(text for text in texts if text.startswith("is back")))
    assert places[back] == "local-1"
    assert "the agent died (killed or crashed) and was started again" in texts[back]
    assert texts[-1].startswith("ended with exit code 0")
    assert "its log is complete: 0 bytes" in texts[-1]
    assert "the agent died" in own_system("nodes", "show", "local-1").stdout.decode()
    shown = own_system.json("runs", "show", run, "--timeline")
    assert [line["text"] for line in shown["items"]] == texts


def test_a_stop_tells_its_signals(system: System) -> None:
    run = begin(system, "local-1", "trap '' TERM; while :; do sleep 0.1; done")
    time_before = time.monotonic()
    assert system("runs", "stop", run, "--grace", "300ms", "--wait").returncode == 0
    assert time.monotonic() - time_before < 20
    timeline = system("runs", "show", run, "--timeline").stdout.decode()
    order = ["stop asked: stopped by admin", "TERM sent", "KILL sent", "ended with signal 9"]
    assert [timeline.index(text) for text in order] == sorted(map(timeline.index, order))


def test_the_system_and_a_node_that_is_not_gone(system: System) -> None:
    shown = system("system").stdout.decode()
    assert "2 online" in shown
    assert "breaker  closed" in shown
    assert system("system", "close-breaker").returncode == 0
    refused = system("nodes", "delete", "local-1")
    assert refused.returncode != 0
    assert b"Node local-1 is online." in refused.stderr
    late = system("nodes", "deny", "local-1")  # somebody has let it in
    assert late.returncode == 1
    assert b"local-1" in late.stderr
    assert b"local-1" in system("nodes").stdout
    assert b"SINCE" in system("nodes").stdout
    assert b"breaker" in system("doctor").stdout
