"""The story of a run: why its tasks are as they are (law 9). Times are microseconds since 1970."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import msgspec

from fleetwire.core.restore import held
from fleetwire.server.domain import restore, views
from fleetwire.server.store import Connection, decisions, nodes, runs
from fleetwire.server.store.decisions import Told
from fleetwire.server.store.nodes import NodeRow
from fleetwire.server.store.runs import TaskRow

STORY_LINES: Final = 5000
NODE_LINES: Final = 20
ASIDES: Final = 100
"""At most so many tasks of a story tell what happened to their nodes as well."""


class StoryLine(msgspec.Struct, frozen=True):
    """One recorded reason: what was decided or heard about a task, when, and its state now."""

    at: int
    task: int | None
    node: str | None
    state: str | None
    text: str


def story(connection: Connection, run_id: str) -> list[StoryLine]:
    """Return why a run's tasks are as they are: by task, the present first, then the past,
    newest first. Raises NotFound.
    """
    run = views.run_row(connection, run_id)
    told: dict[int | None, list[Told]] = {}
    for line in decisions.story(connection, run_id, STORY_LINES):
        told.setdefault(line.position, []).append(line)
    lines = [_story_line(line) for line in told.get(None, ())]
    links = {}
    asides = 0
    doubt = restore.standing(connection)
    for task in runs.tasks_of(connection, run_id):
        past = told.get(task.position, [])
        now = past[0].at if past else run.created_at
        node = None
        if task.node_id is not None and task.state in {"assigned", "running"}:
            if task.node_id not in links:
                links[task.node_id] = nodes.by_id(connection, task.node_id)
            node = links[task.node_id]
        waits = held(doubt, task.attempt, task.node_id)
        if task.state in {"pending", "assigned"} and waits is not None:
            text = f"waits: {waits}"
        else:
            text = _present(task, node)
        lines.append(StoryLine(now, task.position, task.node, task.state, text))
        away = task.outcome == "lost" or (node is not None and node.link != "online")
        if away and past and asides < ASIDES:
            asides += 1
            past = _with_its_node(connection, task, past, is_over=node is None)
        lines += [_story_line(line) for line in past]
        lines.append(StoryLine(run.created_at, task.position, task.node, None, "submitted"))
    return lines


def _with_its_node(
    connection: Connection, task: TaskRow, past: list[Told], *, is_over: bool
) -> list[Told]:
    """Return a task's lines, newest first, with what happened to its node meanwhile."""
    if task.node_id is None:
        return past
    newest, oldest = past[0].id, past[-1].id
    before = newest if is_over else None
    happened = decisions.of_node(connection, task.node_id, before=before, limit=NODE_LINES)
    found = past + [
        Told(one.id, one.at, task.position, task.node, f"the node {one.text}")
        for one in happened
        if one.id > oldest
    ]
    return sorted(found, reverse=True)


def _story_line(line: Told) -> StoryLine:
    return StoryLine(line.at, line.position, line.node, None, line.text)


def _since(node: NodeRow) -> str:
    """Say since when a link is as it is: to the second, in UTC."""
    if node.link_since is None:
        return ""
    at = datetime.fromtimestamp(node.link_since / 1_000_000, UTC)
    return f" since {at:%Y-%m-%d %H:%M:%S}Z"


def _present(task: TaskRow, node: NodeRow | None) -> str:
    """Say how a task stands now, in a sentence."""
    if task.state == "pending":
        return f"waits: {task.reason or 'dispatch has not looked at it yet'}"
    if node is not None:
        silent = "" if node.link == "online" else f", which is {node.link}{_since(node)}"
        doing = "is running" if task.state == "running" else "is on its way to start"
        asked = ", and is asked to stop" if task.wish == "stop" else ""
        return f"{doing} on {node.name}{silent}{asked}"
    because = f": {task.reason}" if task.reason else ""
    return f"{task.outcome or task.state}{because}"
