"""Simulated shims, the tasks they own, and the spawner that forks them.

A shim takes the steps of `fleetwire.shim.attempt.run` in the same order, with the shim's own
records, locks and spool writer; the processes of the task are simulated. Between any two steps
it may be killed, and each change of the disk may be its last.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fleetwire.core.specs import Step
from fleetwire.shim import burial
from fleetwire.shim.locks import take_lock
from fleetwire.shim.order import Order, OrderError
from fleetwire.shim.records import (
    LAST_RECORDS,
    create_record_at,
    note_in_reserve,
    open_record,
    read_record,
    set_reserve_aside,
    write_last_record_at,
    write_record_at,
)
from fleetwire.shim.writer import SpoolWriter
from fleetwire.testing.simulation.ledger import Started
from fleetwire.testing.simulation.loop import ProcessKilled

if TYPE_CHECKING:
    from fleetwire.testing.simulation.node import SimulatedNode

TICK_S: Final = 0.01
BLOCKED_S: Final = 0.5
SYNC_S: Final = 1.0
LASTING_S: Final = 0.05
_steps = msgspec.json.Decoder(tuple[Step, ...])


class SimulatedTask:
    """The processes of one attempt: steps played in virtual time. `lives` until it ends."""

    pid: Final = 2
    """As its shim notes it. Pids are looked at within one attempt only."""

    def __init__(self, started: Started, steps: tuple[Step, ...], now: float) -> None:
        self.started = started
        self._steps = list(steps)
        self.until = now
        self._ignores = False
        self.exit_code: int | None = None
        self.signal: int | None = None

    @property
    def lives(self) -> bool:
        """Whether a process of it lives."""
        return self.started.lives

    def play(self, now: float) -> bytes:
        """Go on to `now`; return what it writes meanwhile."""
        written = b""
        while self.lives and now >= self.until:
            if not self._steps:
                self.end(now, exit_code=0)
                break
            step = self._steps.pop(0)
            match step.do:
                case "sleep":
                    self.until = now + step.seconds
                case "bytes" | "print":
                    written += self._line(step, len(written))
                case "ignore":
                    self._ignores = True
                case "exit":
                    self.end(now, exit_code=step.code)
                case "signal":
                    self.end(now, signal=step.code)
                case _:
                    raise AssertionError(step.do)
        return written

    def _line(self, step: Step, pending: int) -> bytes:
        """Bytes that tell where they belong: numbered by their place in the log."""
        at = len(self.started.written) + pending
        line = f"{self.started.attempt[-6:]} {self.started.epoch} {at} ".encode()
        return (line * (step.size // len(line) + 1))[: max(step.size, 1) - 1] + b"\n"

    def terminate(self, now: float) -> None:
        """TERM."""
        if not self._ignores:
            self.end(now, signal=15)

    def end(self, now: float, *, exit_code: int | None = None, signal: int | None = None) -> None:
        """Nothing of it lives any more."""
        if self.lives:
            self.started.ended = now
            self.exit_code = exit_code
            self.signal = signal


class SimulatedShim:
    """One attempt's shim, running as a process of the node."""

    def __init__(self, node: SimulatedNode, attempt: str) -> None:
        self.node = node
        self.attempt = attempt
        self.folder = f"{node.places.spool(attempt)}"
        self.listens = False
        self.task: SimulatedTask | None = None
        self._order: Order | None = None
        self._writer: SpoolWriter | None = None
        self._cause: str | None = None
        self._kill_at = math.inf
        self._wake = asyncio.Event()

    async def live(self) -> None:
        """Live the life of the attempt; see `fleetwire.shim.attempt.run`."""
        await self._pause()
        try:
            directory = take_lock(self.folder, patience_s=0.25)
        except FileNotFoundError:
            return
        if directory is None:
            return
        # A shim whose disk fails it ends, and its spawner judges the folder.
        with contextlib.suppress(OSError):
            await self._hold(directory)

    async def _hold(self, directory: int) -> None:
        try:
            if LAST_RECORDS.isdisjoint(self.node.system.listdir(directory)):
                await self._live(directory)
        finally:
            self.listens = False
            with contextlib.suppress(OSError, ProcessKilled):
                self.node.system.close(directory)

    async def _live(self, directory: int) -> None:
        await self._pause()
        try:
            order_fd, content = open_record(directory, "order")
            order = self._order = Order.from_record(content)
            if self._is_stopped(order):
                if not self.node.system.path.exists(f"{self.folder}/epoch"):
                    write_record_at(
                        directory, "canceled", {"epoch": order.epoch, "at": self.node.wall()}
                    )
                return
            set_reserve_aside(directory)
            identity = {"pid": 1, "pid_start": 1, "boot_id": self.node.boot_id}
            epoch = {"epoch": order.epoch, **identity}
            if not create_record_at(directory, "epoch", epoch, twin=order_fd):
                return
            self.node.system.close(order_fd)
        except (OrderError, OSError) as error:
            write_record_at(directory, "lost", self._start_failed(error))
            return
        await self._pause()
        try:
            steps = _steps.decode(self.node.system.content(order.argv[-1]))
        except (OSError, msgspec.MsgspecError) as error:
            write_last_record_at(directory, "lost", self._start_failed(error))
            return
        begun = self.node.loop.time()
        started_at = self.node.wall()
        started = self.node.started(self.attempt, order.epoch)
        self.task = SimulatedTask(started, steps, begun)
        self.node.tasks.append(self.task)
        self._writer = SpoolWriter(directory, piece=order.piece, quota=order.quota)
        record = {
            "pid": self.task.pid,
            "pid_start": 1,
            "boot_id": self.node.boot_id,
            "at": started_at,
        }
        with contextlib.suppress(OSError):
            note_in_reserve(directory, record)
        await self._see_to_its_end(self.task, self._writer, begun, directory, record)
        self._writer.close()
        await self._pause()
        write_last_record_at(
            directory,
            "exit",
            {
                "epoch": order.epoch,
                "pid": self.task.pid,
                "cause": self._cause or "exited",
                "exit_code": self.task.exit_code,
                "signal": self.task.signal,
                "at": self.node.wall(),
                "started_at": started_at,
                "duration_s": round(self.node.loop.time() - begun, 6),
                "length": self._writer.length,
                "sha256": self._writer.digest(),
                "leftovers": 0,
                "error": self._writer.error,
            },
        )

    async def _see_to_its_end(
        self,
        task: SimulatedTask,
        writer: SpoolWriter,
        begun: float,
        directory: int,
        started: dict[str, Any],
    ) -> None:
        loop = self.node.loop
        deadline = begun + (math.inf if self._order is None else self._order.deadline_s)
        lasting = begun + LASTING_S
        synced = loop.time()
        pending = b""
        while True:
            now = loop.time()
            if now >= lasting:
                lasting = math.inf
                await self._last(directory, started)
            if now >= deadline and task.lives:
                self._end("deadline", self._grace())
            if now >= self._kill_at:
                task.end(now, signal=9)
            if not pending:
                pending = task.play(now)
            if pending:
                pending = self._store(writer, pending, forced=not task.lives)
            if now - synced >= SYNC_S:
                synced = now
                writer.sync()
            if not task.lives and not pending:
                return
            due = [deadline, self._kill_at, task.until, lasting]
            if writer.dirty:
                due.append(synced + SYNC_S)
            await self._look_again(BLOCKED_S if pending else min(due) - now)

    async def _last(self, directory: int, started: dict[str, Any]) -> None:
        """It has lived a while: be there for who wants to stop it, and say that it runs."""
        self.listens = True
        await self._pause()
        if self._order is not None and self._is_stopped(self._order):
            self._end("stopped", self._grace())
        await self._pause()
        with contextlib.suppress(OSError):
            write_record_at(directory, "started", started, sync=False)

    async def _look_again(self, within_s: float) -> None:
        """Wait until something is due, or the agent has said something."""
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(within_s, TICK_S)):
                await self._wake.wait()

    def _store(self, writer: SpoolWriter, data: bytes, *, forced: bool) -> bytes:
        """Store what there is room for (policy `block`); return what is left."""
        if self.task is None:
            raise AssertionError("there is no task")
        writer.look()
        room = len(data) if forced else writer.room()
        if room <= 0:
            writer.roll()
            return data
        part = data[:room]
        before = writer.length
        written = self.task.started.written
        written += part  # noted first: a crash within the append may leave all of it
        if not writer.append([(1, memoryview(part))]):
            writer.abandon()
        stored = writer.length - before
        del written[writer.length :]
        return data[stored:]

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer a request on the control socket. Raises ConnectionError."""
        if not self.listens or self._writer is None:
            raise ConnectionRefusedError("no shim answers")
        match request["do"]:
            case "stop":
                self._end("stopped", float(request["grace_s"]))
            case "quota":
                self._writer.quota = int(request["bytes"])
        self._wake.set()
        return {"ok": True}

    def _end(self, cause: str, grace_s: float) -> None:
        if self.task is None or not self.task.lives:
            return
        now = self.node.loop.time()
        self._kill_at = min(self._kill_at, now + max(grace_s, 0.0))
        if self._cause is None:
            self._cause = cause
            self.task.terminate(now)

    def _is_stopped(self, order: Order) -> bool:
        stop = read_record(self.folder, "stop")
        return stop is not None and bool(stop.get("epoch", math.inf) >= order.epoch)

    def _grace(self) -> float:
        return 0.0 if self._order is None else self._order.grace_s

    def _start_failed(self, error: Exception) -> dict[str, Any]:
        return {"reason": f"start failed: {error}", "at": self.node.wall()}

    async def _pause(self) -> None:
        """Others may come in between here."""
        await asyncio.sleep(self.node.chance.delay(0.002, 0.3))


def judge(node: SimulatedNode, attempt: str) -> None:
    """What the spawner does about a shim of its own that has ended: `forkserver`'s rule."""
    folder = node.places.spool(attempt)
    try:
        directory = take_lock(folder, patience_s=0.25)
    except FileNotFoundError:
        return
    if directory is None:
        return
    try:
        reason = burial.judge(directory, folder)
        if reason is not None:
            node.kill_each(node.survivors(attempt))
            burial.close_grave(directory, folder, reason)
    finally:
        node.system.close(directory)
