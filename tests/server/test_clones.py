"""A copied state directory, with real agents: noticed within two beats, nothing starts twice."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetwire.testing.lab import Lab, wait_until

pytestmark = pytest.mark.slow
TWO_BEATS_S = 20.0


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path) as lab:
        lab.start_server()
        lab.start_agent()
        yield lab


def copied(lab: Lab) -> str:
    """Copy the state directory, sockets and locks left out, as a person would; return its name."""
    source, name = lab.state("node-1"), "copy"
    skip = shutil.ignore_patterns("*.sock", "control")
    shutil.copytree(source, lab.state(name), ignore=skip)
    lab._enrolled.add(name)
    return name


def admin(lab: Lab) -> str:
    return str(lab.client.node("node-1").admin)


def test_a_copy_beside_the_original_is_noticed_and_starts_nothing_twice(lab: Lab) -> None:
    running = lab.submit(f"{lab.ledger.line()}echo begun\nsleep 600\n")
    wait_until(lab.ledger.lines, "the first task")
    (attempt,) = lab.ledger.lines()
    copy = copied(lab)
    began = time.monotonic()
    lab.launch_agent(copy, "--name", "node-1")
    later = [lab.submit(lab.ledger.line()) for _ in range(5)]
    wait_until(lambda: admin(lab) == "quarantined", "the alarm", within=TWO_BEATS_S)
    assert time.monotonic() - began < TWO_BEATS_S
    # The original's task lives on: the copy has not buried what is not its own.
    assert lab.processes_of(attempt)
    shown = lab.cli("nodes", "why", "node-1").stdout
    assert "ALARM: is now quarantined" in shown
    assert "quarantined" in lab.cli("nodes").stdout
    assert "fleetwire nodes release" in lab.cli("doctor").stdout
    refused = lab.cli("nodes", "resume", "node-1")
    assert (refused.returncode, "release" in refused.stderr) == (1, True)
    lab.agents[copy].stop()
    lab.agents["node-1"].stop()
    assert lab.cli("nodes", "release", "node-1").returncode == 0
    lab.start_agent()
    wait_until(lambda: all(lab.client.run(one.id).state == "ended" for one in later), "the rest")
    lab.client.stop_run(running.id, grace=0)
    wait_until(lambda: lab.client.run(running.id).state == "ended", "the stop")
    assert lab.client.run(running.id).outcome == "canceled"
    starts = lab.ledger.lines()
    assert len(starts) == len(set(starts))


def step(lab: Lab) -> str:
    """Return the mark of the last link that the server took, as the node has noted it."""
    noted = lab.state("node-1") / "link-taken"
    return noted.read_text() if noted.exists() else ""


def test_a_directory_that_was_put_back_is_noticed(lab: Lab) -> None:
    lab.agents["node-1"].stop()
    copied(lab)
    for _ in range(2):
        before = step(lab)
        lab.launch_agent("node-1")
        wait_until(lambda before=before: step(lab) not in {before, ""}, "another link")
        lab.agents["node-1"].kill()
    lab.state("node-1").rename(lab.folder / "newer")
    shutil.move(lab.state("copy"), lab.state("node-1"))
    lab.launch_agent("node-1")
    wait_until(lambda: admin(lab) == "quarantined", "the alarm", within=TWO_BEATS_S)
    assert lab.cli("nodes", "revoke", "node-1").returncode == 0
    assert lab.cli("nodes", "show", "node-1").returncode == 2


def test_kill_9_of_either_side_is_no_alarm(lab: Lab) -> None:
    for _ in range(3):
        lab.agents["node-1"].kill()
        lab.launch_agent("node-1")
        assert lab.server is not None
        lab.server.kill()
        lab.start_server()
        lab.wait_online("node-1")
    assert admin(lab) == "active"
    ran = lab.cli("run", "--node", "node-1", "--", "echo hi")
    assert (ran.returncode, ran.stdout) == (0, "hi\n")
