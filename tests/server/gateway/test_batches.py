"""The gateway's sweeps outlive what goes wrong in one of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fleetwire.server.durable.errors import DatabaseFailed
from fleetwire.server.gateway import batches
from fleetwire.server.gateway.links import Links
from fleetwire.server.nudges.memory import MemoryNudges


class Failing:
    """A database whose reads all raise one error; `asked` counts them by their query."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.asked: dict[str, int] = {}
        self.changed = asyncio.Condition()

    async def read(self, query: Any) -> None:
        async with self.changed:
            self.asked[query.__name__] = self.asked.get(query.__name__, 0) + 1
            self.changed.notify_all()
        raise self.error

    async def write(self, use_case: Any) -> None:
        del use_case


def levels(database: Failing, monkeypatch: pytest.MonkeyPatch) -> batches.Levels:
    monkeypatch.setattr(batches, "SWEEP_S", 0.001)
    monkeypatch.setattr(batches, "ADMISSION_S", 0.001)
    links: Links[batches.SpokenTo] = Links(monotonic=lambda: 0.0, clock=lambda: 0)
    return batches.Levels(database, MemoryNudges(), links, key="")  # type: ignore[arg-type]


async def test_a_sweep_that_fails_is_told_and_looks_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    database = Failing(RuntimeError("can't start new thread"))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(levels(database, monkeypatch).run())
        async with asyncio.timeout(10), database.changed:
            await database.changed.wait_for(
                lambda: len(database.asked) == 2 and min(database.asked.values()) >= 3
            )
        running.cancel()
    assert "can't start new thread" in capsys.readouterr().out


async def test_a_disk_that_failed_ends_them(monkeypatch: pytest.MonkeyPatch) -> None:
    database = Failing(DatabaseFailed("The disk has failed.", hint=""))
    with pytest.raises(ExceptionGroup) as group:
        async with asyncio.timeout(10):
            await levels(database, monkeypatch).run()
    assert group.group_contains(DatabaseFailed)
