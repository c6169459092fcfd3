"""A real agent against FakeServer, and a way to play a scenario with both."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from fleetwire.testing.real_agent import RealAgent

ALL_IN_S = 60.0

Scenario = Callable[[RealAgent], Coroutine[Any, Any, None]]


@pytest.fixture
def lab() -> Iterator[RealAgent]:
    # A short path: not for our own sockets, but so that messages fit on a line.
    root = Path(tempfile.mkdtemp(prefix="fleetwire-agent-"))
    lab = RealAgent(root)
    lab.enrol()
    try:
        yield lab
    finally:
        lab.close()
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def play(lab: RealAgent) -> Callable[[Scenario], None]:
    """Run a scenario; at its end nothing that a server would alarm about has happened."""

    def run(scenario: Scenario) -> None:
        async def all_in() -> None:
            async with asyncio.timeout(ALL_IN_S):
                try:
                    await scenario(lab)
                finally:
                    await lab.server.stop()

        try:
            asyncio.run(all_in())
        except BaseException:
            sys.stdout.write(lab.stderr())
            raise
        assert lab.server.problems == []
        assert "Traceback" not in lab.stderr()

    return run
