"""The short slice of the simulation, its regressions, and that a seed is a seed."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from fleetwire.core.specs import RunRequest, Scripted, Step
from fleetwire.testing.simulation import disk, runner
from fleetwire.testing.simulation.chance import Chance
from fleetwire.testing.simulation.faults import Faults
from fleetwire.testing.simulation.installed import Installed
from fleetwire.testing.simulation.loop import ProcessKilled
from fleetwire.testing.simulation.plan import Plan, Story
from fleetwire.testing.simulation.world import World

# As many worlds as the time of `./dev test` allows, and no more: the short slice is to notice that
# a change broke something at all. The volume is `./dev sim`, by command: docs/reliability.md says
# how many were played.
SLICE = 72
SLICES = 4
BACKUPS = 20

# Seeds that once showed a fault of the product. What a seed is changes with the simulation, so
# each fault has a world of its own below as well, where it needs one.
REGRESSIONS = {
    15: "a challenge that came twice ended the agent",
    34: "a link that was overtaken while it was fenced ended by an AssertionError",
    426: "an attempt whose `epoch` was torn by a power loss stayed assigned",
    5549: "what was wanted again was deleted with its old folder",
}
RESTORED = {
    17: "what a held attempt was is called expired, and it had started",
    13454: "the record of a backup may not know of a hole that its logs have",
    13618: "what may have begun was given back by a drain, and canceled",
    1126: "a hole in a lost attempt's log was sealed: the agent had not said where its spool began",
}


def play(where: Installed, seed: int, plan: Plan | None = None) -> Story:
    return World(seed, plan or Plan.of(seed), where).run()


def tell(story: Story) -> str:
    return "\n".join([*story.trace, f"seed {story.seed}: {story.violation}"])


def test_a_quiet_world_needs_no_time_at_all(where: Installed) -> None:
    story = play(where, 1, Plan(nodes=2, runs=3))
    assert story.violation is None, tell(story)
    assert story.starts >= 1
    assert not story.faults


@pytest.mark.slow
@pytest.mark.parametrize("part", range(SLICES))
def test_every_promise_is_kept_in_every_world(where: Installed, part: int) -> None:
    starts = 0
    faults = 0
    for seed in range(part, SLICE, SLICES):
        story = play(where, seed)
        assert story.violation is None, tell(story)
        starts += story.starts
        faults += sum(story.faults.values())
    assert starts > 30
    assert faults > 30


@pytest.mark.slow
def test_every_promise_is_kept_where_backups_are_put_back(where: Installed) -> None:
    restores = 0
    for seed in range(BACKUPS):
        story = play(where, seed, dataclasses.replace(Plan.of(seed), restores=True))
        assert story.violation is None, tell(story)
        restores += story.faults["restore"]
    assert restores > BACKUPS


@pytest.mark.parametrize("seed", RESTORED)
def test_what_once_failed_after_a_restore_does_not_fail_again(where: Installed, seed: int) -> None:
    story = play(where, seed, dataclasses.replace(Plan.of(seed), restores=True))
    assert story.violation is None, f"{RESTORED[seed]}\n{tell(story)}"


@pytest.mark.parametrize("seed", REGRESSIONS)
def test_what_once_failed_does_not_fail_again(where: Installed, seed: int) -> None:
    story = play(where, seed)
    assert story.violation is None, f"{REGRESSIONS[seed]}\n{tell(story)}"


def test_every_frame_may_come_twice(where: Installed) -> None:
    """Two challenges in one read once ended the agent: it greeted in a closed conversation."""
    story = play(where, 1, Plan(nodes=2, runs=3, busy_s=5.0, doubling=1.0))
    assert story.violation is None, tell(story)


def test_links_that_overtake_each_other_end_in_order(where: Installed) -> None:
    """A link closed while its fence was being set once ended by an AssertionError."""
    faults = frozenset({"drop", "cut"})
    for seed in range(5):
        plan = Plan(nodes=3, runs=3, busy_s=6.0, faults=faults, pause_s=0.05, commit_s=0.3)
        story = play(where, seed, plan)
        assert story.violation is None, tell(story)


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(Faults.KINDS))
def test_each_kind_of_fault_happens_and_is_survived(where: Installed, kind: str) -> None:
    happened = 0
    for seed in range(3):
        plan = Plan(nodes=2, runs=5, busy_s=8.0, faults=frozenset({kind}), pause_s=0.4)
        story = play(where, seed, plan)
        assert story.violation is None, tell(story)
        happened += story.faults[kind]
    assert happened


def test_the_same_seed_is_the_same_world(where: Installed) -> None:
    once, again = play(where, 17), play(where, 17)
    assert once == again
    assert play(where, 18) != once


@pytest.mark.slow
def test_the_same_seed_is_the_same_world_in_another_process(where: Installed) -> None:
    """Python hashes text by chance: nothing of a world may hang on that."""
    program = (
        "from fleetwire.testing.simulation.runner import play\n"
        "for seed in (3, 17, 23): print(play(seed).trace)"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": chance},
            capture_output=True, text=True, check=True,
        ).stdout
        for chance in ("1", "2")
    }  # fmt: skip
    assert len(said) == 1
    del where


def test_a_batch_is_one_line_and_a_run_goes_on_where_it_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.jsonl"
    assert runner.main(["--seeds", "2", "--append", str(results)]) == 0
    assert runner.main(["--seeds", "3", "--append", str(results), "--resume"]) == 0
    batches = [
        msgspec.json.decode(line, type=runner.Batch) for line in results.read_bytes().splitlines()
    ]
    assert [(one.first, one.seeds, one.broken) for one in batches] == [(0, 2, ()), (2, 1, ())]
    assert "1 of 1 seeds" in capsys.readouterr().out


def test_one_seed_is_shown_with_its_trace(capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main(["--seed", "3", "--trace"]) == 0
    said = capsys.readouterr().out
    assert "server 1 starts" in said
    assert said.endswith("seed 3: all promises were kept\n")


def test_a_torn_epoch_beside_a_torn_order_ends_the_attempt(
    where: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two names of one file (docs/seams.md), so they are torn together: the node cannot say any
    more under which epoch it began, and has to be believed all the same: else a stopped attempt
    stays assigned until `lost_after`, a day later.
    """
    monkeypatch.setattr(disk, "_torn", lambda before, _now, _chance: before)
    monkeypatch.setattr(Chance, "whole", lambda _self, _low, high: high)
    world = World(1, Plan(busy_s=8.0), where)
    (node,) = world.nodes

    def lose_power(what: str) -> None:
        if what == "fsync order" and not world.counted["lost"]:
            world.counted["lost"] += 1
            node.lose_power()
            for connection in world.network.of(node.id):
                connection.leave_agent()
            raise ProcessKilled

    async def until_told(count: int, within_s: float) -> None:
        del count, within_s
        wanted = RunRequest(
            Scripted(steps=(Step("sleep", seconds=1.0),)), selector="os=linux", any=1
        )
        run = await world.people.submit(wanted, "key")
        while not world.counted["lost"]:  # noqa: ASYNC110 - virtual time: it costs nothing
            await asyncio.sleep(0.1)
        await world.people.stop(run, None)
        node.start_agent()

    node.disk.wrote = lose_power
    monkeypatch.setattr(world.people, "submit_runs", until_told)
    story = world.run()
    assert story.faults["lost"] == 1
    assert story.violation is None, tell(story)
