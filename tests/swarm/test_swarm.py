"""`fleetwire swarm` against a real server."""

from __future__ import annotations

import hashlib
import signal
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from fleetwire.client import RunRequest, Script
from fleetwire.swarm.behaviour import Output
from fleetwire.testing.lab import Lab

pytestmark = pytest.mark.slow
Start = Callable[..., Any]
AGENTS = 50


def test_a_run_on_all_of_them(lab: Lab, swarm: Start) -> None:
    one = swarm("--output-size", "2KB", "--label", "zone=a")
    one.online()
    run = one.run()
    assert (run.outcome, run.counts["succeeded"]) == ("succeeded", AGENTS)
    tasks = lab.client.run(run.id).tasks
    expected = hashlib.sha256(Output(2000).payload).hexdigest()
    assert {(task.log.length, task.log.sha256, task.log.state) for task in tasks} == {
        (2000, expected, "sealed")
    }
    assert len({task.node for task in tasks}) == AGENTS
    nodes = list(lab.client.nodes())
    assert {(n.link, n.labels["zone"], n.labels["os"], n.capacity) for n in nodes} == {
        ("online", "a", "linux", 16)
    }
    code, _ = one.end()
    last = one.lines[-1]
    assert (code, last["phase"], last["ended"], last["running"]) == (0, "left", AGENTS, 0)


@pytest.mark.parametrize("share", ["0%", "10%", "0.5", "100%"])
def test_exactly_the_share_fails(swarm: Start, share: str) -> None:
    one = swarm("--fail", share)
    one.online()
    failed = {"0%": 0, "10%": 5, "0.5": 25, "100%": 50}[share]
    for _ in range(2):
        counts = one.run().counts
        assert (counts["failed"], counts["succeeded"]) == (failed, AGENTS - failed)


def test_tasks_take_their_time_and_can_be_stopped(lab: Lab, swarm: Start) -> None:
    one = swarm("--latency", "300ms")
    one.online()
    run = one.run()
    assert all(0.29 <= (task.duration or 0) < 5 for task in run.tasks)
    one.end()
    endless = swarm("--latency", "1h")
    endless.online()
    client = lab.client
    run = client.create_run(RunRequest(Script("true"), selector="swarm=yes"))
    endless.wait(lambda line: line.get("running") == AGENTS, "all to run")
    client.stop_run(run.id)
    ended = client.wait(run.id)
    assert ended.counts["canceled"] == AGENTS


def test_large_output_in_small_frames_is_whole(swarm: Start) -> None:
    one = swarm("--output-size", "64KiB", "--frame-size", "1000B", agents=5)
    one.online(5)
    run = one.run()
    expected = hashlib.sha256(Output(65536).payload).hexdigest()
    assert {(task.log.length, task.log.sha256) for task in run.tasks} == {(65536, expected)}


def test_all_come_back_after_kill_9_of_the_server(lab: Lab, swarm: Start) -> None:
    one = swarm("--latency", "2s", "--output-size", "500B")
    one.online()
    client = lab.client
    run = client.create_run(RunRequest(Script("true"), selector="swarm=yes"))
    one.wait(lambda line: line.get("running") == AGENTS, "all to run")
    assert lab.server is not None
    lab.server.kill()
    one.wait(lambda line: line["online"] == 0 and line["ended"] == AGENTS, "the tasks to end")
    lab.start_server()
    back = one.online()
    assert back["reconnects"] == AGENTS
    ended = client.wait(run.id)
    assert (ended.outcome, ended.counts["succeeded"]) == ("succeeded", AGENTS)
    assert {task.number for task in ended.tasks} == {1}
    with sqlite3.connect(f"file:{lab.data / 'fleetwire.db'}?mode=ro", uri=True) as record:
        rows = record.execute("SELECT text FROM decisions WHERE text LIKE 'is offline%'")
        assert rows.fetchall() == []


def test_a_storm_breaks_all_links_again_and_again(swarm: Start) -> None:
    # A link that held for less than 5 s counts as a failure, and its agent waits longer.
    one = swarm("--reconnect-storm", "7s")
    one.online()
    one.wait(lambda line: line["reconnects"] == 2 * AGENTS, "two storms")
    assert one.run().counts["succeeded"] == AGENTS


def test_a_second_start_has_the_same_agents(lab: Lab, swarm: Start) -> None:
    first = swarm(agents=5)
    first.online(5)
    before = {node.id: node.name for node in lab.client.nodes()}
    assert first.end(signal.SIGTERM)[0] == 0
    second = swarm(agents=8)
    second.online(8)
    after = {node.id: node.name for node in lab.client.nodes()}
    assert len(after) == 8
    assert before.items() <= after.items()
    state = lab.folder / "swarm" / "swarm.jsonl"
    assert state.stat().st_mode & 0o777 == 0o600


def test_tasks_of_a_swarm_that_is_gone_are_lost_and_not_run_again(lab: Lab, swarm: Start) -> None:
    first = swarm("--latency", "1h", agents=3)
    first.online(3)
    client = lab.client
    run = client.create_run(RunRequest(Script("true"), selector="swarm=yes"))
    first.wait(lambda line: line.get("running") == 3, "all to run")
    first.process.kill()
    first.process.wait()
    swarm(agents=3).online(3)
    ended = client.wait(run.id)
    assert ended.counts["lost"] == 3


def test_two_swarms_cannot_share_a_folder(swarm: Start) -> None:
    swarm(agents=1).online(1)
    assert "Another swarm uses" in swarm(agents=1).refused()


def test_a_folder_belongs_to_one_cluster(tmp_path: Any, swarm: Start) -> None:
    one = swarm(agents=1)
    one.online(1)
    one.end()
    (tmp_path / "other").mkdir()
    with Lab(tmp_path / "other") as other:
        other.start_server()
        stranger = swarm(agents=2, at=other, state=str(one.lab.folder / "swarm"))
        assert "of another server's cluster" in stranger.refused()


def test_more_agents_than_files(swarm: Start) -> None:
    assert "open files" in swarm(agents=10_000_000).refused()


def test_it_ends_by_itself(swarm: Start) -> None:
    one = swarm("--for", "1s", agents=2)
    assert one.process.wait(20) == 0
    one.end()
    assert one.lines[-1]["connects"] == 2
