"""A TCP proxy between an agent and the server whose network fails as it is told.

What happens to the bytes is data (`Trouble`), so that a round is a script of them. The proxy runs
on a thread and a loop of its own; `trouble` and `peace` may be called from any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from types import TracebackType
from typing import Final, Literal, Self, TypeAlias

import msgspec

How: TypeAlias = Literal[
    "cut", "torn", "refused", "half-open", "up-stalled", "down-stalled", "stalled", "delayed",
    "throttled", "slow-then-cut",
]  # fmt: skip
HOW: Final[tuple[How, ...]] = (
    "cut", "torn", "refused", "half-open", "up-stalled", "down-stalled", "stalled", "delayed",
    "throttled", "slow-then-cut",
)  # fmt: skip
_BLOCK: Final = 64 * 1024
_LINGER_NOT: Final = b"\x01\0\0\0\0\0\0\0"


class Trouble(msgspec.Struct, frozen=True):
    """What is wrong with the network for `for_s` seconds.

    | how | means |
    |---|---|
    | cut | all connections are reset now |
    | torn | each connection is reset after `amount` more bytes, in the middle of a frame |
    | refused | connections are reset, and new ones as soon as they are made |
    | half-open | the server sees the end; the agent's connection stays, silent |
    | up-stalled, down-stalled | bytes to the server, to the agent stay on their way |
    | stalled | both |
    | delayed | each block comes `amount` milliseconds later |
    | throttled | `amount` bytes a second |
    | slow-then-cut | as delayed, and reset when it is over |
    """

    how: How
    for_s: float
    amount: int = 0


class _Line:
    """One connection through the proxy."""

    def __init__(self, agent: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.ends = {"up": server, "down": agent}
        self.budget: int | None = None
        self.half_open = False

    def reset(self) -> None:
        """Reset both ends: what is in flight is lost."""
        for writer in self.ends.values():
            _reset(writer)


class Proxy:
    """Listens on a port of the loopback and passes on what comes to `target`.

    A context manager; `port` is known once it is entered.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.connections = 0
        self._trouble: Trouble | None = None
        self._lines: set[_Line] = set()
        self._moved = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._leaving = asyncio.Event()
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy")

    def __enter__(self) -> Self:
        self._thread.start()
        self._up.wait()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.peace()
        self._loop.call_soon_threadsafe(self._leaving.set)
        self._thread.join()

    def trouble(self, trouble: Trouble) -> None:
        """Begin a trouble, until the next one or `peace` (`for_s` is for who plays the script)."""
        self._loop.call_soon_threadsafe(self._begin, trouble)

    def peace(self) -> None:
        """End it: what was held back arrives now."""
        self._loop.call_soon_threadsafe(self._begin, None)

    # ------------------------------------------------------------------------- on the loop

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=_BLOCK)
        self.port = int(server.sockets[0].getsockname()[1])
        self._up.set()
        await self._leaving.wait()
        server.close()
        while self._lines:
            for line in tuple(self._lines):
                line.reset()
            await asyncio.sleep(0.01)

    def _begin(self, trouble: Trouble | None) -> None:
        before, self._trouble = self._trouble, trouble
        if before is not None and before.how in {"slow-then-cut", "half-open"}:
            self._reset_all()
        if trouble is not None:
            if trouble.how in {"cut", "refused"}:
                self._reset_all()
            for line in self._lines:
                if trouble.how == "torn":
                    line.budget = trouble.amount
                if trouble.how == "half-open":
                    line.half_open = True
                    _reset(line.ends["up"])
        self._moved.set()
        self._moved = asyncio.Event()

    def _reset_all(self) -> None:
        for line in tuple(self._lines):
            line.reset()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._trouble is not None and self._trouble.how == "refused":
            _reset(writer)
            return
        try:
            there, server = await asyncio.open_connection("127.0.0.1", self.target, limit=_BLOCK)
        except OSError:
            _reset(writer)
            return
        line = _Line(writer, server)
        self._lines.add(line)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(line, reader, "up"))
                group.create_task(self._pass_on(line, there, "down"))
        finally:
            self._lines.discard(line)
            line.reset()

    async def _pass_on(
        self, line: _Line, reader: asyncio.StreamReader, way: Literal["up", "down"]
    ) -> None:
        """Pass on one direction until its end, then reset the other: no end is polite here."""
        with contextlib.suppress(OSError):
            while block := await reader.read(_BLOCK):
                await self._wait_way_is_free(len(block), way)
                if line.half_open:
                    continue  # nobody is there any more
                if line.budget is not None:
                    block, rest = block[: line.budget], block[line.budget :]
                    line.budget -= len(block)
                    if rest or not line.budget:
                        line.ends[way].write(block)
                        break
                line.ends[way].write(block)
                await line.ends[way].drain()
        while line.half_open:
            await self._moved.wait()
            if self._trouble is None:
                break
        line.reset()

    async def _wait_way_is_free(self, count: int, way: Literal["up", "down"]) -> None:
        while (trouble := self._trouble) is not None:
            if trouble.how in {"stalled", f"{way}-stalled"}:
                await self._moved.wait()
                continue
            if trouble.how in {"delayed", "slow-then-cut"}:
                await asyncio.sleep(trouble.amount / 1000)
            elif trouble.how == "throttled":
                await asyncio.sleep(count / trouble.amount)
            return


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST and without what is buffered, as a failed network does."""
    end = writer.get_extra_info("socket")
    if end is not None and end.fileno() >= 0:
        with contextlib.suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    writer.transport.abort()
