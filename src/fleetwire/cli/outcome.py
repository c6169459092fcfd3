"""What the tasks of a run mean: exit codes and sentences. Values in, values out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from fleetwire.cli.errors import CANCELED, FAILED, NOT_DONE, SUCCEEDED, TIMED_OUT
from fleetwire.cli.visible import one_line
from fleetwire.client import Task

_NOT_DONE: Final = frozenset({"lost", "refused", "expired"})


def exit_code(tasks: Sequence[Task]) -> int:
    """Return the exit code for a run that has ended (interfaces, 1): one task gives the
    script's own; of several, a failure stands before what was not done.
    """
    if len(tasks) == 1:
        return _of_one(tasks[0])
    outcomes = {task.outcome for task in tasks}
    if outcomes <= {"succeeded"}:
        return SUCCEEDED
    if outcomes & _NOT_DONE and not outcomes & {"failed", "timed_out", "canceled"}:
        return NOT_DONE
    return FAILED


def _of_one(task: Task) -> int:
    if task.outcome in {"succeeded", "failed"}:
        if task.signal is not None:
            return 128 + task.signal
        if task.exit_code is not None:
            return task.exit_code
        return SUCCEEDED if task.outcome == "succeeded" else FAILED
    if task.outcome == "timed_out":
        return TIMED_OUT
    if task.outcome == "canceled":
        return CANCELED
    return NOT_DONE


def ending(task: Task) -> str:
    """Return how a task ended, in a few words."""
    outcome = task.outcome or task.state
    if outcome == "failed" and task.signal is not None:
        words = f"failed (signal {task.signal})"
    elif outcome == "failed" and task.exit_code is not None:
        words = f"failed (exit {task.exit_code})"
    else:
        words = outcome.replace("_", " ")
    if task.reason:
        words += f": {one_line(task.reason)}"
    return words


def late(task: Task) -> str:
    """Return what is known of the end of an attempt that had been given up as lost."""
    exited = task.late_exit
    if exited is None:
        return ""
    how = f"signal {exited.signal}" if exited.signal is not None else f"exit {exited.exit_code}"
    because = "" if exited.cause == "exited" else f", {exited.cause}"
    return f"its end came after it was lost: {how}{because} at {exited.at or 'an unknown time'}"


def summary(tasks: Sequence[Task]) -> list[str]:
    """Return what a person wants to know at the end: nothing when one task ended by itself
    (its output says it), else the count of outcomes and each task that did not succeed, or did
    with something to say (a full disk took the end of its output).
    """
    if len(tasks) == 1:
        task = tasks[0]
        by_itself = task.signal is None and task.reason is None
        if task.outcome in {"succeeded", "failed"} and by_itself:
            return []
        return [f"{place(task)}: {ending(task)}"]
    counts = Counter(task.outcome or task.state for task in tasks)
    total = ", ".join(f"{number} {word.replace('_', ' ')}" for word, number in counts.items())
    return [
        *(
            f"{place(task)}: {ending(task)}"
            for task in tasks
            if task.outcome != "succeeded" or task.reason
        ),
        f"{len(tasks)} tasks: {total}",
    ]


def place(task: Task) -> str:
    """Return the node's name, or the task's number while it has no node."""
    return one_line(task.node) if task.node else f"task {task.index}"


def progress(tasks: Mapping[str, Task], width: int) -> str:
    """Return the progress line: done, running, failed, waiting and why."""
    done = running = failed = 0
    waiting: list[Task] = []
    for task in tasks.values():
        if task.outcome == "succeeded":
            done += 1
        elif task.outcome is not None:
            failed += 1
        elif task.state == "running":
            running += 1
        else:
            waiting.append(task)
    words = [f"{done}/{len(tasks)} done", f"{running} running"]
    if failed:
        words.append(f"{failed} not succeeded")
    if waiting:
        words.append(f"{len(waiting)} waiting")
        reason = next((task.reason for task in waiting if task.reason), None)
        if reason:
            words[-1] += f": {one_line(reason)}"
    return ", ".join(words)[: max(1, width - 1)]
