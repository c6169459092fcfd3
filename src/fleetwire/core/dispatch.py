"""Which pending attempt goes to which node, now. A plan is a value; carrying it out (the
conditional update) is the shell's, and a plan that has become stale there simply fails.

Placement: an attempt with a node waits for that node; one without takes, among the nodes it
may use, a steady one rather than one whose link is unstable, and among those the least loaded by
share of capacity in use. Everything that must wait is given the reason that a person needs, with
the node's name (law 9).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias

import msgspec

LinkState: TypeAlias = Literal["online", "unstable", "offline"]
AdminState: TypeAlias = Literal[
    "waiting", "active", "draining", "drained", "disabled", "quarantined"
]
"""`waiting`: enrolled with a token that asks for approval, and not approved yet."""
LOCKED_OUT: Final[frozenset[AdminState]] = frozenset({"waiting", "disabled", "quarantined"})
"""Nodes that may have no link."""


class NodeView(msgspec.Struct, frozen=True):
    """A node as dispatch sees it. `busy` counts its assigned and running attempts."""

    id: str
    name: str
    link: LinkState
    admin: AdminState
    capacity: int
    busy: int


class Waiting(msgspec.Struct, frozen=True):
    """A pending attempt, oldest first in a view. `node`: the one it is bound to, or None with
    `candidates` and `taken` (nodes that other tasks of the same run already use) and `tried`
    (nodes that earlier attempts of this task were on: used again only where no other is free).
    `number` counts the attempts of its task.
    `held`: why it must not be given to any node now (core.restore).
    """

    attempt: str
    run: str
    epoch: int
    queue_deadline: int
    node: str | None = None
    candidates: frozenset[str] = frozenset()
    taken: frozenset[str] = frozenset()
    tried: frozenset[str] = frozenset()
    held: str | None = None
    reason: str | None = None
    number: int = 1


class Assign(msgspec.Struct, frozen=True):
    """Give it to this node."""

    attempt: str
    node: str


class Wait(msgspec.Struct, frozen=True):
    """It stays pending, for a reason that differs from the recorded one."""

    attempt: str
    reason: str


class Expire(msgspec.Struct, frozen=True):
    """Its queue deadline has passed."""

    attempt: str
    reason: str


Decision: TypeAlias = Assign | Wait | Expire


def is_own_idea(one: Waiting) -> bool:
    """Say whether placing it now would be the system's own idea: another try of its task, or it
    was given to a node that did not start it and any other would do.
    """
    return one.number > 1 or (one.node is None and one.epoch > 0)


def plan(
    waiting: Sequence[Waiting],
    nodes: Mapping[str, NodeView],
    now: int,
    *,
    hold: str | None = None,
) -> list[Decision]:
    """Decide for every waiting attempt, in order; `now` is microseconds since 1970.

    With `hold` nothing is retried or placed anew, for that reason (P11); first placements are
    what people asked for, and go on.
    """
    busy = {node.id: node.busy for node in nodes.values()}
    taken: dict[str, set[str]] = {}
    decisions: list[Decision] = []
    for one in waiting:
        if now >= one.queue_deadline:
            why = f"no start before its queue deadline; last reason: {one.reason or 'none'}"
            decisions.append(Expire(one.attempt, why))
            continue
        used = taken.setdefault(one.run, set(one.taken)) if one.node is None else set()
        if one.held is not None:
            chosen, reason = None, one.held
        elif hold is not None and is_own_idea(one):
            chosen, reason = None, hold
        else:
            chosen, reason = _place(one, nodes, busy, used)
        if chosen is not None:
            busy[chosen] += 1
            used.add(chosen)
            decisions.append(Assign(one.attempt, chosen))
        elif reason != one.reason:
            decisions.append(Wait(one.attempt, reason))
    return decisions


def because(one: Waiting, nodes: Mapping[str, NodeView]) -> str:
    """Say why a plan gave it to the node that it chose among these."""
    if one.node is not None:
        return "the node that it is for"
    able = sum(1 for id_ in one.candidates - one.taken if id_ in nodes)
    return f"the least loaded of {able} that it may use, steady ones first"


def obstacle(node: NodeView, busy: int) -> str | None:
    """Why this node takes no start now, or None if it does."""
    if node.admin == "waiting":
        return f"node {node.name} waits for approval"
    if node.admin != "active":
        return f"node {node.name} is {node.admin}"
    if node.link == "offline":
        return f"node {node.name} is offline"
    if busy >= node.capacity:
        return f"node {node.name} is at capacity ({busy} of {node.capacity} running)"
    return None


def _place(
    one: Waiting, nodes: Mapping[str, NodeView], busy: Mapping[str, int], used: set[str]
) -> tuple[str | None, str]:
    if one.node is not None:
        node = nodes.get(one.node)
        if node is None:
            return None, "its node is gone"
        against = obstacle(node, busy[node.id])
        return (node.id, "") if against is None else (None, against)
    free: list[tuple[bool, bool, float, int, str, str]] = []
    against_all: list[str] = []
    for node_id in sorted(one.candidates - used):
        node = nodes.get(node_id)
        if node is None:
            continue
        against = obstacle(node, busy[node_id])
        if against is None:
            load = busy[node_id]
            tried, unsteady = node_id in one.tried, node.link != "online"
            free.append((tried, unsteady, load / node.capacity, load, node.name, node_id))
        else:
            against_all.append(against)
    if free:
        return min(free)[-1], ""
    if not against_all:
        return None, "no node matches the selector now"
    more = f" (and {len(against_all) - 3} more)" if len(against_all) > 3 else ""
    return None, "; ".join(against_all[:3]) + more
