"""Rounds in which an older copy of the server's data is put back (P26)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Final

from fleetwire.testing.faults.load import one_task
from fleetwire.testing.faults.stage import Stage
from fleetwire.testing.faults.tasks import Task
from fleetwire.testing.lab import wait_until

_SHORT: Final = Task(kind="short", lines=3)
_LONGER: Final = Task(kind="streaming", lines=100, pause=0.05, code=5)
_GONE_WITHIN_S: Final = 60.0


def restored(stage: Stage) -> None:
    """The server gets an older copy of its database and logs back, while nodes have gone on."""
    system, lab = stage.system, stage.system.lab
    with stage.loaded(tasks=[_SHORT] * 4) as load:
        load.wait_done()
    running = _submit(stage, _LONGER, "running in the copy")
    wait_until(lambda: all(system.book(one).starts for one in running), "the starts")
    for name in system.names:
        system.kill_agent(name)
    pending = _submit(stage, _SHORT, "pending in the copy")
    system.stop_server()
    copy = system.folder / "copy"
    shutil.copytree(lab.data, copy)
    before = _generation(stage)
    system.restore()
    stage.did("the copy is made", "restore")
    _wait_ended(stage, [*running, *pending])
    later = _submit(stage, _SHORT, "not in the copy")
    _wait_ended(stage, later)
    unfinished = _submit(stage, _LONGER, "not in the copy and running")
    wait_until(lambda: all(system.book(one).starts for one in unfinished), "the starts")
    system.kill_server()
    shutil.rmtree(lab.data)
    shutil.copytree(copy, lab.data)
    shutil.rmtree(copy)
    stage.did("the copy is put back")
    system.restore()
    with stage.loaded(tasks=[_SHORT] * 4) as load:
        load.wait_done()
    _wait_ended(stage, [*running, *pending])
    _judge(stage, [*running, *pending], [*later, *unfinished])
    stage.measures["generation before"] = before
    stage.measures["generation after"] = after = _generation(stage)
    if after <= before:
        stage.broken.append(f"P26 the epoch's generation is {after}, and was {before}")


def _submit(stage: Stage, task: Task, what: str) -> list[str]:
    lab = stage.system.lab
    attempts = []
    for name in stage.system.names:
        request = task.request(str(stage.system.books), name, f"{stage.name} {what}")
        attempts.append(one_task(lab.client.create_run(request)).attempt)
    return attempts


def _wait_ended(stage: Stage, attempts: list[str]) -> None:
    client = stage.system.lab.client

    def ended() -> bool:
        states = {one_task(client.run(run.id)).attempt: run.state for run in client.runs(page=200)}
        return all(states.get(attempt) == "ended" for attempt in attempts)

    try:
        wait_until(ended, "the end of all", within=_GONE_WITHIN_S)
    except TimeoutError:
        stage.broken.append("P26 attempts of the copy do not end")


def _judge(stage: Stage, known: list[str], forgotten: list[str]) -> None:
    system = stage.system
    client = system.lab.client
    tasks = {(task := one_task(client.run(run.id))).attempt: task for run in client.runs(page=200)}
    for attempt in [*known, *forgotten]:
        if (starts := system.book(attempt).starts) > 1:
            stage.broken.append(f"P2 it started {starts} times after the restore: {attempt}")
    for attempt in known:
        outcome = tasks[attempt].outcome if attempt in tasks else "not there"
        stage.outcomes[f"restored {outcome}"] += 1
        ended, late = system.book(attempt).ended, tasks[attempt].late_exit
        if outcome == "lost" and ended and late is None:
            stage.broken.append(f"P26 shown lost, and its end is not shown as late: {attempt}")
    for attempt in forgotten:
        if attempt in tasks:
            stage.broken.append(f"P26 an attempt that is not in the copy is there: {attempt}")
    try:
        wait_until(lambda: not system.alive(forgotten), "the end of forgotten tasks", within=60)
    except TimeoutError:
        stage.broken.append(f"P26 tasks that the server forgot live on: {system.alive(forgotten)}")


def _generation(stage: Stage) -> int:
    """Return the highest generation of epochs that any node has seen."""
    found = 0
    for name in stage.system.names:
        path: Path = stage.system.lab.state(name) / "level.json"
        if path.exists():
            found = max(found, int(json.loads(path.read_bytes()).get("generation", 0)))
    return found
