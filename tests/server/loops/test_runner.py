"""Loops outlive their rounds."""

from __future__ import annotations

import asyncio

import pytest

from fleetwire.server.durable.errors import DatabaseFailed
from fleetwire.server.loops.runner import Runner
from fleetwire.server.nudges.memory import MemoryNudges


class Counting:
    """A loop whose rounds are counted; `fail` makes the next ones raise."""

    name = "counting"
    topics = ("some",)
    every_s = 60.0

    def __init__(self) -> None:
        self.rounds = 0
        self.fail: Exception | None = None
        self.changed = asyncio.Condition()

    async def round(self) -> str:
        async with self.changed:
            self.rounds += 1
            self.changed.notify_all()
        if self.fail is not None:
            raise self.fail
        return f"round {self.rounds}"

    async def wait(self, rounds: int) -> None:
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(lambda: self.rounds >= rounds)


async def test_a_loop_looks_at_once_by_nudge_and_by_timer() -> None:
    nudges = MemoryNudges()
    loop = Counting()
    runner = Runner([loop], nudges)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(runner.run())
        await loop.wait(1)
        nudges.send("some")
        await loop.wait(2)
        running.cancel()
    timed = Counting()
    timed.every_s = 0.01
    async with asyncio.TaskGroup() as group:
        running = group.create_task(Runner([timed], MemoryNudges(drop=True)).run())
        await timed.wait(5)
        running.cancel()


async def test_an_error_is_told_and_the_loop_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    loop = Counting()
    loop.fail = ValueError("no luck")
    runner = Runner([loop], MemoryNudges())
    async with asyncio.TaskGroup() as group:
        running = group.create_task(runner.run())
        await loop.wait(1)
        loop.fail = None
        await loop.wait(2)
        status = runner.status["counting"]
        assert status.failures == 1
        running.cancel()
    assert "no luck" in capsys.readouterr().out
    assert runner.status["counting"].last_result == "round 2"


async def test_a_failed_disk_ends_everything() -> None:
    loop = Counting()
    loop.fail = DatabaseFailed("the disk is broken")
    with pytest.raises(BaseExceptionGroup) as caught:
        await Runner([loop, Counting()], MemoryNudges()).run()
    assert caught.value.subgroup(DatabaseFailed) is not None
