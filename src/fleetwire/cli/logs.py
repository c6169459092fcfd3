"""`fleetwire runs logs`: the output of a run, from the record or live."""

from __future__ import annotations

import argparse
import sys
from typing import Final

from fleetwire.cli import outcome
from fleetwire.cli.app import Leaf
from fleetwire.cli.connect import connect
from fleetwire.cli.errors import DETACHED, UsageError
from fleetwire.cli.parsing import Parser, count, duration
from fleetwire.cli.run import say, screen_for, show_log, text_view
from fleetwire.cli.screen import Screen, write_all
from fleetwire.cli.show import short
from fleetwire.cli.visible import visible_json, visible_text
from fleetwire.cli.watch import Json, View, Watch
from fleetwire.client import Client, LogBytes, Run, Task

_STDOUT: Final = 1


def configure(parser: Parser) -> None:
    """Describe the arguments."""
    parser.story = (
        "Without -f it prints what there is now. --raw gives exactly the bytes that the task\n"
        "wrote, both streams in the order they came, of one task."
    )
    parser.examples += [
        "fleetwire runs logs 019a0f3c-1b2d -f",
        "fleetwire runs logs 019a0f3c-1b2d --node web-1 --raw > web-1.log",
        "fleetwire runs logs 019a0f3c-1b2d --search error",
    ]
    parser.positional("run", completes="run", help="the run's id, or a unique start of it")
    parser.option("--follow", "-f", action="store_true", help="go on until the run has ended")
    parser.option("--node", metavar="NAME", completes="node", help="only this node's task")
    parser.option(
        "--attempt", metavar="N", type=count, help="only this try of each task (default all)"
    )
    parser.option("--search", metavar="TEXT", help="only the lines that hold the text")
    parser.option("--tail", metavar="N", type=count, help="only the last N lines of each task")
    parser.option(
        "--since", metavar="TIME", type=duration, help="only what was written in the last 10m, 2h"
    )
    parser.option("--raw", action="store_true", help="the exact bytes, nothing made visible")


def call(values: argparse.Namespace) -> int:
    """Print the logs."""
    with connect() as client:
        run = client.run(values.run)
        tasks = tries(chosen(run, values.node), values.attempt)
        if values.search is not None:
            return _search(client, tasks, values)
        if values.tail is not None:
            return _tail(client, tasks, values)
        if values.raw and not values.follow:
            for block in client.raw_log(_the_one(tasks, values.attempt).attempt):
                write_all(_STDOUT, block)
            return 0
        return _show(client, run, tasks, values)


def chosen(run: Run, node: str | None) -> list[Task]:
    """Return the tasks of a run that are wanted."""
    tasks = run.tasks or []
    if node is None:
        return tasks
    wanted = [task for task in tasks if node in {task.node, task.node_id}]
    if not wanted:
        names = ", ".join(sorted(outcome.place(task) for task in tasks)[:20])
        raise UsageError(
            f"Run {short(run.id)} has no task on {node!r}.", hint=f"It runs on: {names}."
        )
    return wanted


def tries(tasks: list[Task], number: int | None) -> list[Task]:
    """Return all attempts of the tasks in order, or the one of each that is wanted."""
    all_ = [one for task in tasks for one in (*task.earlier, task)]
    if number is None:
        return all_
    wanted = [one for one in all_ if one.number == number]
    if not wanted:
        most = max((task.number for task in tasks), default=0)
        raise UsageError(f"There is no attempt {number}.", hint=f"There are 1 to {most}.")
    return wanted


def _the_one(attempts: list[Task], number: int | None) -> Task:
    tasks = {one.id: one for one in attempts}
    if len(tasks) != 1:
        raise UsageError(
            f"--raw is for one task, and this run has {len(tasks)}.",
            hint="Choose one with --node NAME.",
        )
    if number is None and len(attempts) > 1:
        raise UsageError(
            f"--raw is for one log, and this task was tried {len(attempts)} times.",
            hint="Choose one with --attempt N.",
        )
    return attempts[0]


def _search(client: Client, tasks: list[Task], values: argparse.Namespace) -> int:
    found = False
    for task in tasks:
        for match in client.log_search(task.attempt, values.search):
            found = True
            if values.output == "text":
                text = match.text if values.raw else visible_text(match.text)
                where = f"{outcome.place(task)}:" if len(tasks) > 1 else ""
                sys.stdout.write(f"{where}{match.line}:{text}\n")
            else:
                _json_line(task, match)
    # As grep: nothing found is an answer of its own.
    return 0 if found else 1


def _tail(client: Client, tasks: list[Task], values: argparse.Namespace) -> int:
    for task in tasks:
        for line in client.log_tail(task.attempt, values.tail).lines:
            if values.output == "text":
                text = line.text if values.raw else visible_text(line.text)
                where = f"{outcome.place(task)} | " if len(tasks) > 1 else ""
                sys.stdout.write(f"{where}{text}\n")
            else:
                _json_line(task, line)
    return 0


def _json_line(task: Task, value: object) -> None:
    import msgspec

    line = msgspec.to_builtins(value) | {"node": task.node, "attempt": task.attempt}
    sys.stdout.write(visible_json(msgspec.json.encode(line).decode()) + "\n")


def _show(client: Client, run: Run, tasks: list[Task], values: argparse.Namespace) -> int:
    watched = Watch(screen_for(values, lambda width: outcome.progress(watched.tasks, width)), tasks)
    screen = watched.screen
    view: View = text_view(watched, raw=values.raw) if values.output == "text" else Json(screen)
    if values.since is not None:
        view = _Since(view, values.since)
    try:
        with screen:
            if values.follow:
                wanted = {task.id for task in tasks}
                only = None if values.attempt is None else {task.attempt for task in tasks}
                watched.follow(client.follow(run.id), view, wanted, only=only)
            else:
                _print(client, tasks, view, screen)
    except KeyboardInterrupt:
        say(f"The run goes on. Follow it again: fleetwire runs logs {short(run.id)} -f")
        return DETACHED
    return 0


def _print(client: Client, tasks: list[Task], view: View, screen: Screen) -> None:
    for task in tasks:
        show_log(client, task, view)
        screen.flush()


class _Since:
    """Passes on what was written after a time."""

    def __init__(self, view: View, seconds: float) -> None:
        import time

        self._view = view
        earliest = time.gmtime(time.time_ns() / 1e9 - seconds)
        # RFC 3339 texts of one zone sort as their times do.
        self._earliest = time.strftime("%Y-%m-%dT%H:%M:%S", earliest)

    def show(self, log: LogBytes) -> None:
        """Show the parts that are young enough."""
        parts = [part for part in log.parts if part.time >= self._earliest]
        if parts:
            self._view.show(LogBytes(log.attempt, log.offset, parts, log.node, log.index))

    def finish(self, attempt: str) -> None:
        """Show what was held back."""
        self._view.finish(attempt)


LEAVES = {"runs logs": Leaf(configure, call)}
