"""The event loop of the simulation: asyncio's own tasks and futures under a virtual clock.

When nothing is ready the clock jumps to the next timer, so a day passes in a moment and the same
seed does the same things at the same times. Callbacks run in the order in which they were queued,
as in asyncio: what the code may rely on stays, and everything else is decided by the delays that
the simulated disks, networks and threads take from the seed.

Each simulated process (a server, an agent, a shim) is a `Process`, known by a context variable.
It can be killed (`kill`: its timers never fire, its tasks only unwind, and every simulated device
refuses it) and stopped for a while (`freeze`), as by SIGSTOP.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

IDLE_MOST: Final = 200_000
"""Callbacks at one instant: more is a loop that never lets time pass."""


class ProcessKilled(BaseException):
    """A simulated device was used by a process that is dead: nothing more happens in it."""


class Livelock(AssertionError):
    """Time does not pass any more: something polls without a pause."""


class Process:
    """One simulated operating-system process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self._frozen = False
        self._held: list[asyncio.Handle] = []
        self._loop: VirtualLoop | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    def __repr__(self) -> str:
        return f"<{self.name}{'' if self.alive else ', dead'}>"

    def spawn(self, loop: VirtualLoop, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a coroutine as a part of this process."""
        self._loop = loop
        context = contextvars.copy_context()
        context.run(CURRENT.set, self)
        task = loop.create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and self.alive and self._loop is not None:
            self._loop.failures.append(f"{self}: {error!r}")

    def kill(self) -> None:
        """End it at once, as SIGKILL does. Its tasks unwind without any effect."""
        self.alive = False
        if self._loop is not None:
            self.thaw(self._loop)
            # Behind what is ready: a coroutine that has not begun cannot be unwound.
            self._loop.call_soon(self._unwind)

    def _unwind(self) -> None:
        for task in sorted(self._tasks, key=asyncio.Task.get_name):
            task.cancel()

    def freeze(self) -> None:
        """Run nothing of it until `thaw`."""
        self._frozen = True

    def thaw(self, loop: VirtualLoop) -> None:
        """Run what came meanwhile."""
        self._frozen = False
        loop.requeue(self._held)
        self._held.clear()

    def hold(self, handle: asyncio.Handle) -> bool:
        """Take what is to run later because the process is stopped."""
        if self._frozen and self.alive:
            self._held.append(handle)
            return True
        return False


CURRENT: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


def check_alive() -> None:
    """Raise ProcessKilled where the process that runs now is dead."""
    process = CURRENT.get()
    if process is not None and not process.alive:
        raise ProcessKilled(process.name)


class VirtualLoop(asyncio.AbstractEventLoop):
    """See the module. `thread_s` gives the time that the next call in a thread takes."""

    def __init__(self, thread_s: Callable[[], float]) -> None:
        self._now = 0.0
        self._thread_s = thread_s
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = itertools.count()
        self._task_numbers = itertools.count()
        self.steps = 0
        self.failures: list[str] = []

    # -- what asyncio asks of a loop ---------------------------------------------------------

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._now

    def get_debug(self) -> bool:
        """Return False: asyncio's debug mode measures real time."""
        return False

    def is_running(self) -> bool:
        """Return True: whoever can ask runs in it."""
        return True

    def is_closed(self) -> bool:
        """Return False: it ends with its world."""
        return False

    def create_future(self) -> asyncio.Future[Any]:
        """Return a new future."""
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[T]:
        """Return a task; its name is a number of this loop, so that names repeat."""
        del name
        number = f"{next(self._task_numbers):06d}"
        return asyncio.Task(coro, loop=self, name=number, context=context)

    def call_soon(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """Run a callback after all that is ready."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run a callback at a virtual time."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run a callback after so many virtual seconds."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def run_in_executor(
        self, executor: object, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run a blocking call in one instant, after a while: there are no threads here."""
        del executor
        future: asyncio.Future[T] = self.create_future()

        def run() -> None:
            try:
                result = func(*args)
            except Exception as error:  # noqa: BLE001 - it goes to who waits
                if not future.done():
                    future.set_exception(error)
                return
            if not future.done():
                future.set_result(result)

        # A cancelled caller does not stop the thread; only a killed process does.
        self.call_later(self._thread_s(), run)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep what nobody caught: it fails the world."""
        error = context.get("exception")
        if error is not None and _only_killed(error):
            return
        self.failures.append(f"{context['message']}: {error!r}")

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Asyncio calls it; a cancelled timer is skipped when its time comes."""

    # -- what the world asks -----------------------------------------------------------------

    def requeue(self, handles: list[asyncio.Handle]) -> None:
        """Queue handles that were held back."""
        self._ready.extend(handles)

    def run(self, until: Callable[[], bool], *, limit_s: float) -> bool:
        """Run until the condition holds, which is looked at whenever time is about to pass, or
        the clock has reached `limit_s`. Return whether it holds.
        """
        asyncio._set_running_loop(self)  # noqa: SLF001 - two halves of one thing
        try:
            while True:
                self._run_ready()
                if until():
                    return True
                if not self._advance(limit_s):
                    self._now = max(self._now, limit_s)
                    return False
        finally:
            asyncio._set_running_loop(None)  # noqa: SLF001 - two halves of one thing

    def _run_ready(self) -> None:
        ready = self._ready
        count = 0
        while ready:
            handle = ready.popleft()
            if handle.cancelled():
                continue
            process = handle._context.get(CURRENT)  # type: ignore[attr-defined]  # noqa: SLF001 - two halves of one thing
            if process is not None and (process.hold(handle) or _is_void(process, handle)):
                continue
            handle._run()  # noqa: SLF001 - two halves of one thing
            count += 1
            if count > IDLE_MOST:
                raise Livelock(f"{handle!r} and others run for ever at {self._now:.3f} s")
        self.steps += count

    def _advance(self, limit_s: float) -> bool:
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        if not timers or timers[0][0] > limit_s:
            return False
        self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            timer = heapq.heappop(timers)[2]
            if not timer.cancelled():
                self._ready.append(timer)
        return True


def _only_killed(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(_only_killed, error.exceptions))
    return isinstance(error, ProcessKilled | asyncio.CancelledError)


def _is_void(process: Process, handle: asyncio.Handle) -> bool:
    """Of a dead process no timer fires any more; what is ready still unwinds its tasks."""
    return not process.alive and isinstance(handle, asyncio.TimerHandle)
