"""Runs loops: timer, nudge, a human sentence of what each does now, and its last result."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog

from fleetwire.server.log import log_failure
from fleetwire.server.nudges.base import Listener, Nudges
from fleetwire.server.store.engine import DatabaseFailed

PAUSE_S: Final = 1.0
"""Between a round that failed and the next one."""

_log = structlog.get_logger()


class Loop(Protocol):
    """A background reconciler."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    @property
    def topics(self) -> tuple[str, ...]:
        """Nudges that make it look sooner."""
        ...

    @property
    def every_s(self) -> float:
        """It looks so often without any nudge (5.14)."""
        ...

    async def round(self) -> str:
        """Look once and do what is to do; return the result as a human sentence.

        Cancelling is safe at any point: the next round looks again.
        """
        ...


class LoopStatus:
    """What a loop is doing, for people."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.now = "has not begun"
        self.last_result = ""
        self.last_error = ""
        self.rounds = 0
        self.failures = 0
        self.seconds = 0.0


class Runner:
    """Runs loops until it is cancelled."""

    def __init__(
        self,
        loops: Sequence[Loop],
        nudges: Nudges,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loops = loops
        self._nudges = nudges
        self._monotonic = monotonic
        self.status = {loop.name: LoopStatus(loop.name) for loop in loops}

    async def run(self) -> None:
        """Run every loop. An error of a round is logged, and the loop goes on after a pause;
        only a `DatabaseFailed` comes out, because then the process must end (P15).
        """
        async with asyncio.TaskGroup() as group:
            for loop in self._loops:
                group.create_task(self._run(loop), name=f"loop {loop.name}")

    async def _run(self, loop: Loop) -> None:
        status = self.status[loop.name]
        async with self._nudges.listen(*loop.topics) as listener:
            while True:
                pause = await self._round(loop, status)
                await self._wait(loop, status, listener, pause)

    async def _round(self, loop: Loop, status: LoopStatus) -> float:
        """Run one round; return how long to pause whatever nudges come."""
        status.now = "looks and acts"
        began = self._monotonic()
        try:
            status.last_result = await loop.round()
            status.last_error = ""
            return 0.0
        except DatabaseFailed:
            raise
        except Exception as error:  # noqa: BLE001 - a loop outlives its rounds; it is logged
            status.failures += 1
            status.last_error = str(error) or type(error).__name__
            log_failure(_log, "loop round failed", error, loop=loop.name)
            return PAUSE_S
        finally:
            status.rounds += 1
            status.seconds += self._monotonic() - began

    async def _wait(self, loop: Loop, status: LoopStatus, listener: Listener, pause: float) -> None:
        if pause:
            status.now = f"pauses {pause:g} s after an error: {status.last_error}"
            await asyncio.sleep(pause)
        else:
            status.now = f"waits for a nudge, or {loop.every_s:g} s"
            await listener.wait(loop.every_s)
