"""Watching a run: its events become output on a screen, until its end.

One task: its bytes go through as they are, both streams apart, behind a check for control
characters. Several: whole lines behind the node's name (`lines`). What is shown is what the
client gives, each byte once, also across a restart of the server.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

import msgspec

from fleetwire.cli import outcome
from fleetwire.cli.lines import Lines, Source
from fleetwire.cli.screen import Screen
from fleetwire.cli.visible import Visible, one_line, visible_json
from fleetwire.client import End, LogBytes, Part, RunChanged, Task, TaskChanged
from fleetwire.client.follow import Event
from fleetwire.client.shapes import GAP, STDERR, STDOUT

_COLOURS: Final = ("36", "33", "32", "35", "34", "96", "93", "92", "95", "94")
_NAME_CHARS: Final = 24


class View(Protocol):
    """What shows the output of tasks."""

    def show(self, log: LogBytes) -> None:
        """Show the next bytes of an attempt."""

    def finish(self, attempt: str) -> None:
        """Note that an attempt's log is complete."""


class Plain:
    """The output of one task (or of tasks one after the other), without a prefix."""

    def __init__(self, screen: Screen, *, raw: bool) -> None:
        self._screen = screen
        self._raw = raw
        self._visible: dict[Source, Visible] = {}

    def show(self, log: LogBytes) -> None:
        """Show the next bytes of an attempt."""
        for part in log.parts:
            if part.stream == GAP:
                if not self._raw:
                    self._screen.say(gap_line(part))
            elif self._raw:
                self._screen.write(part.stream, part.data)
            else:
                visible = _of(self._visible, Source(log.attempt, part.stream))
                self._screen.write(part.stream, visible.feed(part.data))

    def finish(self, attempt: str) -> None:
        """Show what was held back."""
        for stream in (STDOUT, STDERR):
            visible = self._visible.pop(Source(attempt, stream), None)
            if visible is not None:
                self._screen.write(stream, visible.finish())


class Prefixed:
    """The output of several nodes, each line behind its node's name."""

    def __init__(self, screen: Screen, names: Iterable[str], *, raw: bool, colour: bool) -> None:
        self._screen = screen
        self._raw = raw
        self._colour = colour
        self._width = min(_NAME_CHARS, max((len(one_line(name)) for name in names), default=0))
        self._lines = Lines(screen.write)
        self._visible: dict[Source, Visible] = {}
        self._prefixes: dict[str, bytes] = {}

    def show(self, log: LogBytes) -> None:
        """Show the next bytes of an attempt."""
        prefix = self._prefixes.get(log.attempt)
        if prefix is None:
            prefix = self._prefixes[log.attempt] = self._prefix(log)
        for part in log.parts:
            if part.stream == GAP:
                self._screen.say(prefix.decode() + gap_line(part))
                continue
            source = Source(log.attempt, part.stream)
            data = part.data
            visible = _of(self._visible, source)
            self._lines.feed(source, prefix, data if self._raw else visible.feed(data))

    def finish(self, attempt: str) -> None:
        """Show what was held back, and end its last line."""
        prefix = self._prefixes.get(attempt, b"")
        for stream in (STDOUT, STDERR):
            source = Source(attempt, stream)
            visible = self._visible.pop(source, None)
            if visible is not None:
                self._lines.feed(source, prefix, visible.finish())
                self._lines.finish(source, prefix)

    def _prefix(self, log: LogBytes) -> bytes:
        name = one_line(log.node or f"task {log.index}", _NAME_CHARS)
        text = f"{name:{self._width}} |"
        if self._colour:
            text = f"\x1b[{_COLOURS[log.index % len(_COLOURS)]}m{text}\x1b[0m"
        return f"{text} ".encode()


class Nothing:
    """No output: where it is grouped at the end, or only the record is wanted."""

    def show(self, log: LogBytes) -> None:
        """Show nothing."""

    def finish(self, attempt: str) -> None:
        """Show nothing."""


class Json:
    """Every event as one line of JSON: `{"event": ..., "data": ...}` with the API's shapes."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def event(self, kind: str, data: bytes) -> None:
        """Write one event."""
        if not data.isascii() or b"\x7f" in data:
            data = visible_json(data.decode("utf-8", "replace")).encode()
        line = b'{"event":"' + kind.encode() + b'","data":' + data + b"}\n"
        self._screen.write(STDOUT, line)
        self._screen.flush()

    def show(self, log: LogBytes) -> None:
        """Write log bytes, in base64 as the API has them."""
        self.event("log", msgspec.json.encode(log))

    def finish(self, attempt: str) -> None:
        """Write nothing: the task's own event says it."""


class Watch:
    """Holds what is known of a run's tasks while its events go by."""

    def __init__(self, screen: Screen, tasks: Iterable[Task]) -> None:
        self.screen = screen
        self.tasks: dict[str, Task] = {task.id: task for task in tasks}
        self._shown: dict[str, int] = {}
        self._lengths: dict[str, int] = {}

    def follow(
        self,
        events: Iterable[Event],
        view: View,
        wanted: set[str] | None = None,
        *,
        only: set[str] | None = None,
    ) -> None:
        """Show events until the end; `wanted` restricts output to these tasks' ids, `only` to
        these attempts.
        """
        attempts: dict[str, str] = {
            one.attempt: task.id for task in self.tasks.values() for one in (*task.earlier, task)
        }
        finished: set[str] = set()
        for event in events:
            if isinstance(event, LogBytes):
                self._shown[event.attempt] = event.offset + sum(p.length for p in event.parts)
                chosen = wanted is None or attempts.get(event.attempt) in wanted
                if chosen and (only is None or event.attempt in only):
                    view.show(event)
                if event.attempt in self._lengths:
                    self._finish_complete(view, finished)
            elif isinstance(event, TaskChanged):
                task = event.task
                self._tell_retry(self.tasks.get(task.id), task, view)
                self.tasks[task.id] = task
                attempts.update((one.attempt, task.id) for one in (*task.earlier, task))
                if isinstance(view, Json):
                    view.event("task", event.raw)
                for one in (*task.earlier, task):
                    if one.outcome and one.log.length is not None and one.attempt not in finished:
                        self._lengths[one.attempt] = one.log.length
                self._finish_complete(view, finished)
            elif isinstance(event, RunChanged):
                if isinstance(view, Json):
                    view.event("run", event.raw)
            else:
                assert_end(event)
                for task in self.tasks.values():
                    if task.attempt not in finished:
                        view.finish(task.attempt)
                if isinstance(view, Json):
                    view.event("end", b"{}")
            self.screen.flush()

    def _tell_retry(self, before: Task | None, now: Task, view: View) -> None:
        """Say that a task is tried again, and why."""
        known = 1 if before is None else before.number
        if now.number <= known or isinstance(view, Json):
            return
        last = now.earlier[-1] if now.earlier else None
        how = f"{outcome.place(last)}: {outcome.ending(last)}; " if last is not None else ""
        self.screen.say(f"{how}attempt {now.number} follows: {one_line(now.reason or now.state)}")

    def _finish_complete(self, view: View, finished: set[str]) -> None:
        # A task's event may come before its last bytes: only both together are the log's end.
        for attempt, length in list(self._lengths.items()):
            if self._shown.get(attempt, 0) >= length:
                del self._lengths[attempt]
                finished.add(attempt)
                view.finish(attempt)


def assert_end(event: End) -> None:
    """Nothing else is left: the type says so."""


def gap_line(part: Part) -> str:
    """Return the line that stands for dropped output."""
    return f"[{part.length} bytes of output were dropped by the node]"


def _of(known: dict[Source, Visible], source: Source) -> Visible:
    visible = known.get(source)
    if visible is None:
        visible = known[source] = Visible()
    return visible
