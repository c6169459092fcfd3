"""The agent's line to the spawner: requests go out at once, answers come in order.

The spawner outlives the agent and may be killed; the next one is started here. What became of a
request that got no answer stands in the attempt's folder, nowhere else.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec

from fleetwire.agent.status import Status
from fleetwire.shim import spawner

_AGAIN_S: Final = (0.05, 5.0)
_log = logging.getLogger(__name__)

# (attempt, error): None when a shim was forked; "" when the spawner died before it answered.
Answered = Callable[[str, str | None], None]


class SpawnerLine(asyncio.Protocol):
    """One per agent; `run` keeps it up for ever."""

    def __init__(self, state: str, status: Status) -> None:
        self._state = state
        self._status = status
        self._transport: asyncio.Transport | None = None
        self._asked: deque[str] = deque()
        self._waiting: list[str] = []
        self._partial = b""
        self._lost = asyncio.Event()
        self.answered: Answered = _nobody

    def start(self, attempts: list[str]) -> None:
        """Ask for a shim for each of these, whose folders hold an `order`."""
        if self._transport is None:
            self._waiting += attempts
        else:
            self._ask(attempts)

    async def run(self) -> None:
        """Hold a connection to a spawner, so that it stays; start one where there is none."""
        loop = asyncio.get_running_loop()
        wait = _AGAIN_S[0]
        while True:
            try:
                connection = await asyncio.to_thread(spawner.ensure, self._state)
            except (spawner.SpawnerError, OSError) as error:
                self._status.say("spawner", f"cannot be started: {error}")
                _log.error("the spawner cannot be started: %s", error)
                self._fail(f"the spawner cannot be started: {error}")
                await asyncio.sleep(wait)
                wait = min(wait * 2, _AGAIN_S[1])
                continue
            wait = _AGAIN_S[0]
            self._lost.clear()
            connection.setblocking(False)
            await loop.create_unix_connection(lambda: self, sock=connection)
            self._status.say("spawner", "ready")
            await self._lost.wait()
            self._status.say("spawner", "gone; starting another one")
            _log.warning("the spawner is gone; starting another one")
            await asyncio.sleep(wait)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for what has waited."""
        if not isinstance(transport, asyncio.Transport):
            raise AssertionError("a stream transport was asked for")  # noqa: TRY004 (unreachable)
        self._transport = transport
        self._partial = b""
        waiting, self._waiting = self._waiting, []
        self._ask(waiting)

    def data_received(self, data: bytes) -> None:
        """Hand each answer to who asked."""
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            answer: dict[str, Any] = msgspec.json.decode(line)
            error = None if answer.get("ok") else str(answer.get("error") or "no reason given")
            self.answered(self._asked.popleft(), error)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's signature)
        """Give back what got no answer."""
        self._transport = None
        self._lost.set()
        asked, self._asked = self._asked, deque()
        for attempt in asked:
            self.answered(attempt, "")

    def close(self) -> None:
        """Let go of the spawner: it stays while a shim lives."""
        if self._transport is not None:
            self._transport.abort()

    def _ask(self, attempts: list[str]) -> None:
        if not attempts or self._transport is None:
            return
        self._asked.extend(attempts)
        self._transport.write(
            b"".join(
                msgspec.json.encode({"do": "start", "attempt": attempt}) + b"\n"
                for attempt in attempts
            )
        )

    def _fail(self, error: str) -> None:
        waiting, self._waiting = self._waiting, []
        for attempt in waiting:
            self.answered(attempt, error)


def _nobody(attempt: str, error: str | None) -> None:
    raise AssertionError(f"nobody listens for {attempt}: {error}")
