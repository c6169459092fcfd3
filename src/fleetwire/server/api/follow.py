"""What streams send: a run with its tasks and logs, or one attempt's log."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

import msgspec

from fleetwire.server.api import cursor, write
from fleetwire.server.api.cursor import Read
from fleetwire.server.api.parts import Parts
from fleetwire.server.api.streams import EventWriter
from fleetwire.server.domain import follow, views
from fleetwire.server.domain.views import AttemptView, TaskView
from fleetwire.server.logs.base import LogGone
from fleetwire.server.nudges.base import Listener

SETTLED: Final = frozenset({"sealed", "damaged", "missing"})
SWEEP_S: Final = 1.0
READ_BYTES: Final = 512 * 1024
"""Log bytes of one event at most: large enough to be quick, small enough to be held."""

LOOK_SHARE: Final = 4
"""A look at a large run takes time; the next one comes no sooner than this many times as much."""

FEW_TASKS: Final = 8
"""A run of so many tasks is looked at whenever it changes: it has few changes, and whoever waits
for its end should not wait for a pause as well.
"""


class Log:
    """How far one attempt's log was sent. `index`, `node` and `number` are of its task."""

    def __init__(self, segment: str, task: TaskView, offset: int = 0) -> None:
        self.segment = segment
        self.task = task
        self.offset = offset
        self.stored = 0
        self.is_gone = False
        self._is_final = False

    @property
    def attempt(self) -> str:
        """The attempt whose log this is."""
        return self.task.attempt

    @property
    def is_settled(self) -> bool:
        """Whether the record waits for nothing more of this log."""
        return self.task.log.state in SETTLED

    @property
    def is_behind(self) -> bool:
        """Whether there are bytes to send now."""
        return self.offset < self.stored and not self.is_gone

    @property
    def is_done(self) -> bool:
        """Whether nothing will ever come any more."""
        return self.is_gone or (self._is_final and not self.is_behind)

    def take_length(self, stored: int | None, *, settled: bool) -> None:
        """Take the stored length; `settled` says that the log was settled before it was read.

        The order makes `is_done` right: bytes are committed before the attempt is sealed (5.7).
        """
        if stored is None:
            self.is_gone = True  # its segment was deleted
        else:
            self.stored = stored
            self._is_final = settled


async def look(parts: Parts, logs: Collection[Log]) -> None:
    """Learn the stored lengths of logs that may have grown."""
    settled = {log.attempt: log.is_settled for log in logs}
    lengths = await parts.logs.lengths([(log.segment, log.attempt) for log in logs])
    for log in logs:
        log.take_length(lengths.get(log.attempt), settled=settled[log.attempt])


async def read_event(parts: Parts, log: Log) -> tuple[write.LogEvent, int] | None:
    """Read on in one log: the event, and how many bytes it covers. None where nothing is there."""
    try:
        chunks = await parts.logs.read(log.segment, log.attempt, log.offset, READ_BYTES)
    except LogGone:
        log.is_gone = True
        return None
    if not chunks:
        log.stored = log.offset
        return None
    task = log.task
    made = write.LogEvent(task.attempt, task.node, task.index, log.offset, write.parts(chunks))
    covered = sum(chunk.length for chunk in chunks)
    log.offset += covered
    return made, covered


async def follow_log(parts: Parts, followed: AttemptView, offset: int, out: EventWriter) -> None:
    """Follow one attempt's log from `offset`; each event's id is the offset behind it."""
    log = Log(followed.segment, followed.task, offset)
    run_topic = f"run:{followed.run_id}"
    async with parts.nudges.listen(f"log:{log.attempt}", run_topic) as listener:
        nudged: set[str] = set()
        while True:
            if not nudged or run_topic in nudged:
                seen = await parts.database.read(lambda c: views.get_attempt(c, log.attempt))
                log.task = seen.task
            await look(parts, [log])
            while log.is_behind:
                read = await read_event(parts, log)
                if read is not None:
                    await out.event("log", read[0], str(log.offset))
            if log.is_done:
                await out.event("end", {"attempt": log.attempt}, str(log.offset))
                await out.flush()
                return
            await out.flush()
            nudged = await listener.wait(SWEEP_S)


class RunFollower:
    """Follows one run for one reader: its state, its tasks, and with `logs` all their bytes."""

    def __init__(
        self,
        parts: Parts,
        run: str,
        *,
        with_logs: bool,
        last_event_id: str | None,
        clock: Callable[[], float],
    ) -> None:
        self._parts = parts
        self._run = run
        self._topic = f"run:{run}"
        self._with_logs = with_logs
        self._before = cursor.parse_vector(last_event_id)
        self._clock = clock
        # 64 bits of each: a large run has thousands of tasks, and may have hundreds of readers.
        self._sent: dict[int | str, int] = {}
        self._logs: dict[str, Log] = {}  # by attempt; those of one task by number
        self._is_sealed = False
        self._look_again_at = 0.0

    async def write(self, out: EventWriter) -> None:
        """Write until the run has ended and all its logs are sealed and sent."""
        async with self._parts.nudges.listen(self._topic) as listener:
            nudged: set[str] = set()
            while True:
                everything = not nudged or self._topic in nudged
                if everything:
                    began = self._clock()
                    await self._changes(listener, out)
                    logs = [log for log in self._logs.values() if not log.is_done]
                    await look(self._parts, logs)
                    if len(self._sent) > FEW_TASKS + 1:  # the run itself is among them
                        took = self._clock() - began
                        self._look_again_at = self._clock() + LOOK_SHARE * took
                else:
                    names = (topic.removeprefix("log:") for topic in nudged)
                    logs = [self._logs[name] for name in names if name in self._logs]
                    await look(self._parts, logs)
                await self._bytes(logs, out)
                if self._is_sealed and all(log.is_done for log in self._logs.values()):
                    await out.event("end", {"run": self._run}, self._cursor())
                    await out.flush()
                    return
                await out.flush()
                nudged = await self._wait(listener)

    async def _wait(self, listener: Listener) -> set[str]:
        nudged = await listener.wait(SWEEP_S)
        if self._topic in nudged:
            # A large run changes faster than it can be looked at: collect for a moment.
            stop = min(self._look_again_at, self._clock() + SWEEP_S)
            while (left := stop - self._clock()) > 0:
                nudged |= await listener.wait(left)
        return nudged

    async def _changes(self, listener: Listener, out: EventWriter) -> None:
        """Write what has changed of the run and its tasks since it was written."""
        run = await self._parts.database.read(lambda c: views.get_run(c, self._run))
        # Ended and all logs settled; the logs themselves are compared with the store besides.
        self._is_sealed = run.state == "ended" and run.sealed
        if self._is_news("run", (run.state, run.outcome, run.wish, run.ended_at, run.counts)):
            await out.event("run", write.run(msgspec.structs.replace(run, tasks=None)))
        if self._with_logs:
            await self._take_all(run.tasks or (), listener)
        for task in run.tasks or ():
            if self._is_news(task.index, task):
                await out.event("task", write.task(task))

    async def _take_all(self, tasks: Collection[TaskView], listener: Listener) -> None:
        """Follow every attempt of every task: a retry does not cut off what came before it."""
        all_ = [one for task in tasks for one in (*task.earlier, task)]
        new = [one for one in all_ if one.attempt not in self._logs]
        if new:
            segments = await self._parts.database.read(lambda c: follow.segments(c, self._run))
            for one in new:
                self._take(segments[one.attempt], one, listener)
        for one in all_:
            self._logs[one.attempt].task = one

    def _is_news(self, key: int | str, value: object) -> bool:
        mark = hash(msgspec.json.encode(value))
        if self._sent.get(key) == mark:
            return False
        self._sent[key] = mark
        return True

    def _take(self, segment: str, task: TaskView, listener: Listener) -> None:
        """Follow an attempt that is new here."""
        before = self._before.get(task.index)
        offset = before.offset if before is not None and before.number == task.number else 0
        log = self._logs[task.attempt] = Log(segment, task, offset)
        if before is not None and task.number < before.number:
            log.is_gone = True  # the reader has had all of it
            return
        listener.add(f"log:{task.attempt}")

    async def _bytes(self, logs: Collection[Log], out: EventWriter) -> None:
        """Write the bytes that are there, one event a log in turn, so that none waits for all."""
        behind = [log for log in logs if log.is_behind]
        while behind:
            for log in behind:
                read = await read_event(self._parts, log)
                if read is not None:
                    is_due = out.is_id_due(read[1])
                    await out.event("log", read[0], self._cursor() if is_due else None)
            behind = [log for log in behind if log.is_behind]

    def _cursor(self) -> str:
        """Return where the reader is: of each task the first log that is not done, else the last
        one. What came of later attempts meanwhile comes again after a reconnect.
        """
        at: dict[int, Log] = {}
        for log in self._logs.values():
            known = at.get(log.task.index)
            if known is None or (known.is_done and known.task.number < log.task.number):
                at[log.task.index] = log
        return cursor.vector(
            {index: Read(log.task.number, log.offset) for index, log in at.items()}
        )
