"""Nodes: their links, what an administrator decides of them, what they tell about themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from fleetwire.core import limits
from fleetwire.core.absences import Life
from fleetwire.core.attempts import SPOOL_GONE, declare_lost, give_back
from fleetwire.core.clones import Step, Stood, judge
from fleetwire.core.dispatch import LOCKED_OUT, AdminState, LinkState
from fleetwire.core.errors import FleetwireError, LimitExceeded
from fleetwire.server.domain import audit, breaker, clones, node_story, restore
from fleetwire.server.domain.changes import Changes
from fleetwire.server.domain.enrolment import (
    Enrolled,
    Keys,
    create_token,
    delete_token,
    enrol,
    list_tokens,
    record_refusal,
)
from fleetwire.server.domain.errors import NotFound
from fleetwire.server.store import Connection, attempts, decisions, nodes
from fleetwire.server.store.decisions import Decision
from fleetwire.server.store.engine import Tx
from fleetwire.server.store.nodes import LinkRow, Silence, silences

__all__ = [
    "Accepted",
    "Enrolled",
    "Greeting",
    "Keys",
    "NodeKey",
    "NodeRefused",
    "NodeWaiting",
    "NotAdmitted",
    "NotWaiting",
    "Noticed",
    "Reading",
    "Silence",
    "accept_hello",
    "accept_hellos",
    "admission",
    "approve",
    "confirm_drains",
    "create_token",
    "delete_token",
    "enrol",
    "fleet",
    "inventory",
    "keys_of",
    "let_in",
    "list_tokens",
    "note_refused_stop",
    "note_strange",
    "record_refusal",
    "set_admin",
    "write_links",
]

US: Final = 1_000_000
_encode = msgspec.json.Encoder().encode


class NodeRefused(FleetwireError):
    """The node may not connect: it is unknown or disabled."""

    code = "node-refused"


class NodeWaiting(NodeRefused):
    """The node may not connect before it is approved."""

    code = "node-waiting"


class NotWaiting(FleetwireError):
    """There is nothing to approve."""

    code = "not-waiting"


class NotAdmitted(FleetwireError):
    """The node waits for approval, or is quarantined: that has to be settled first."""

    code = "not-admitted"


class Greeting(msgspec.Struct, frozen=True):
    """What a verified hello says. `clock` is the node's, `generation` the highest it has seen,
    `life` the agent's word on itself, `step` that of core.clones; `is_bound`: of an agent that
    knows steps. `away_s` is not the node's word: how long it was silent before, None where this
    process has never heard it. `features`: what it offers and we know.
    """

    incarnation: str
    boot_id: str
    agent_version: str
    generation: int
    clock: int
    address: str | None
    life: Life | None = None
    away_s: float | None = None
    step: Step | None = None
    is_bound: bool = False
    features: frozenset[str] = frozenset()


class Accepted(msgspec.Struct, frozen=True):
    """The terms of a new link."""

    link_epoch: int
    name: str
    incarnation: str


class Reading(NamedTuple):
    """How a node is heard in this process: `silent_s` since its last frame, or since the process
    began (P10: a restarted server gives everyone a fresh start); `seen_at` is wall time,
    microseconds since 1970, None if it was never heard here. `reconnects` is how often its link
    came again within the window of `core.flapping`, `skew` how far its clock is ahead of ours
    (microseconds), None where no heartbeat has told.
    """

    connected: bool
    silent_s: float
    seen_at: int | None
    reconnects: int = 0
    skew: int | None = None


class NodeKey(msgspec.Struct, frozen=True):
    """A node's public signing key; `admin` as of now."""

    key: bytes
    admin: AdminState


def keys_of(connection: Connection, ids: Sequence[str]) -> dict[str, NodeKey]:
    """Return the keys that hellos of these nodes must be signed with; who is unknown has none."""
    return {id_: NodeKey(*found) for id_, found in nodes.keys(connection, ids).items()}


def accept_hello(tx: Tx, node: str, greeting: Greeting) -> Accepted:
    """Take a verified hello, as `accept_hellos` does. Raises NodeRefused."""
    accepted = accept_hellos(tx, {node: greeting})[node]
    if isinstance(accepted, NodeRefused):
        raise accepted
    return accepted


def accept_hellos(tx: Tx, greetings: Mapping[str, Greeting]) -> dict[str, Accepted | NodeRefused]:
    """Take verified hellos, by node: from their commit on, older links of the nodes are fenced
    (5.6). With a new incarnation, what was given under the old one is lost (5.3).
    """
    rows = nodes.lock_all(tx.connection, list(greetings))
    stood = nodes.greeted_before(tx.connection, list(rows))
    told: list[tuple[str, str]] = []
    answers: dict[str, Accepted | NodeRefused] = {}
    greeted: list[dict[str, Any]] = []
    for node, greeting in greetings.items():
        row = rows.get(node)
        if row is None or row.admin in LOCKED_OUT:
            answers[node] = _locked_out(row)
            continue
        was = stood[node]
        before = Stood(was.mark, was.steps)
        verdict = judge(before, greeting.step) if greeting.is_bound else "taken"
        if verdict in {"copied", "older"}:
            why = clones.quarantine(tx, row, verdict, before, greeting.step)
            answers[node] = NodeRefused(f"This node is quarantined: {why}.")
            continue
        if verdict == "behind":
            told.append((node, "has linked more often than this record knows: it is an older one"))
        answers[node] = Accepted(row.link_epoch + 1, row.name, greeting.incarnation)
        # One that flaps stays so until it is steady, however often it says hello.
        link: LinkState = "unstable" if was.reconnects else "online"
        back = node_story.return_of(was, greeting.boot_id, greeting.life, greeting.away_s)
        if back is not None:
            told.append((node, back))
        greeted.append(
            {
                "the_id": node,
                "link_epoch": row.link_epoch + 1,
                "link": link,
                "link_since": was.link_since if link == was.link else tx.now,
                "life": node_story.write_life(greeting.life),
                "incarnation": greeting.incarnation,
                "boot_id": greeting.boot_id,
                "agent_version": greeting.agent_version,
                "address": greeting.address,
                "clock_skew": greeting.clock - tx.now,
                "last_seen_at": tx.now,
                "mark": greeting.step.end if greeting.step else "",
                "steps": greeting.step.count if greeting.step else 0,
                "features": nodes.write_features(greeting.features),
            }
        )
        tx.nudge(f"dispatch:{node}")
    if not greeted:
        return answers
    restore.go_past(tx, max(greetings[one["the_id"]].generation for one in greeted))
    nodes.greet_all(tx.connection, greeted)
    node_story.say_all(tx, told)
    for one in greeted:
        if one["incarnation"] != rows[one["the_id"]].incarnation:
            _lose_old_incarnation(tx, one["the_id"], one["incarnation"])
    tx.nudge("nodes")
    return answers


def _locked_out(row: LinkRow | None) -> NodeRefused:
    if row is not None and row.admin == "waiting":
        return NodeWaiting(
            "This node waits for approval.", hint=f"fleetwire nodes approve {row.name}"
        )
    if row is not None and row.admin == "quarantined":
        return NodeRefused(
            "This node is quarantined.", hint=f"fleetwire nodes why {row.name} says why."
        )
    return NodeRefused(
        "This node is disabled or unknown.", hint="An administrator can enrol or enable it."
    )


def approve(tx: Tx, node: str, *, by: str) -> None:
    """Let a node in whose token asked for approval. Raises NotFound, NotWaiting."""
    row = nodes.lock(tx.connection, node)
    if row is None:
        raise NotFound(f"There is no node {node}.", hint="fleetwire nodes lists them.")
    if row.admin != "waiting":
        raise NotWaiting(
            f"Node {row.name} is {row.admin}: it does not wait for approval.",
            hint="fleetwire nodes lists those that do.",
        )
    nodes.change(tx.connection, node, admin="active", revision=row.revision + 1)
    node_story.say(tx, node, f"was approved by {by}")
    tx.nudge("nodes")
    tx.nudge(f"dispatch:{node}")


def set_admin(
    tx: Tx,
    node: str,
    admin: AdminState,
    *,
    by: str | None = None,
    check_lockout: Callable[[], object] = lambda: None,
) -> AdminState:
    """Drain, resume, disable a node: a new revision of Desired (5.13). `by` is a user's name,
    `check_lockout` raises where they may not lock a node out or let it in again: it is called,
    with the node locked, if that is what this would do. Return what the node was before.

    `draining` becomes `drained` only when the node has confirmed it and nothing runs there.
    Raises NotFound, NotAdmitted.
    """
    row = nodes.lock(tx.connection, node)
    if row is None:
        raise NotFound(f"There is no node {node}.", hint="fleetwire nodes lists them.")
    if {row.admin, admin} & LOCKED_OUT:
        check_lockout()
    if row.admin in {"waiting", "quarantined"}:
        way = "approve" if row.admin == "waiting" else "release"
        raise NotAdmitted(
            f"Node {row.name} is {row.admin}.",
            hint=f"fleetwire nodes {way} {row.name}, or fleetwire nodes revoke {row.name}.",
        )
    if admin == row.admin or (admin == "draining" and row.admin == "drained"):
        return row.admin
    nodes.change(tx.connection, node, admin=admin, revision=row.revision + 1)
    node_story.say(tx, node, f"is now {admin}" + (f", by {by}" if by else ""))
    if admin == "disabled":
        nodes.admission_changed(tx.connection, f"{tx.now}:{node}")
    if admin != "active":
        changes = Changes(tx)
        held = attempts.live_of_node(tx.connection, node)
        changes.take(held)
        doubt = restore.standing(tx.connection)
        for one in held:
            if not restore.is_held(doubt, one):  # else it may have begun there
                changes.apply(give_back(one.attempt, f"node {row.name} is {admin}"), node=node)
        changes.flush()
    tx.nudge(f"node:{node}")
    tx.nudge("nodes")
    tx.nudge(f"dispatch:{node}")
    return row.admin


def confirm_drains(tx: Tx) -> int:
    """Make `drained` of every draining node that confirmed it and runs nothing; say how many."""
    ready = nodes.drained(tx.connection)
    for node, _ in ready:
        nodes.change(tx.connection, node, admin="drained")
        node_story.say(tx, node, "is now drained: it has confirmed it, and nothing runs there")
    if ready:
        tx.nudge("nodes")
    return len(ready)


def inventory(tx: Tx, node: str, link_epoch: int, facts: dict[str, Any]) -> None:
    """Store what a node tells about its machine, and for how many attempts it has places: its
    settings or its own policy may have changed. Raises LimitExceeded; stale links are ignored.
    """
    text = _encode(facts)
    if len(text) > limits.INVENTORY_BYTES:
        raise LimitExceeded(
            f"The inventory has {len(text)} bytes.", hint=f"At most {limits.INVENTORY_BYTES}."
        )
    row = nodes.links(tx.connection, [node]).get(node)
    if row is not None and row.link_epoch == link_epoch:
        changes: dict[str, Any] = {"inventory": text.decode()}
        places = facts.get("max_concurrent")
        if type(places) is int and 1 <= places <= limits.CAPACITY:
            changes["capacity"] = places
        nodes.change(tx.connection, node, **changes)
        tx.nudge("nodes")


class Noticed(msgspec.Struct, frozen=True, kw_only=True):
    """What a look at the links found, by node: link states that changed, when it was last heard
    (microseconds since 1970), how often its link came again (0 where it does not flap), how far
    its clock is ahead (microseconds); and what to tell of it, as (node, text).
    """

    states: Mapping[str, LinkState] = {}
    heard_at: Mapping[str, int] = {}
    reconnects: Mapping[str, int] = {}
    skews: Mapping[str, int] = {}
    told: Sequence[tuple[str, str]] = ()

    def __bool__(self) -> bool:
        return bool(self.states or self.heard_at or self.reconnects or self.skews)


def write_links(tx: Tx, noticed: Noticed) -> None:
    """Write what was noticed; what is told of nodes becomes part of their stories."""
    changes: tuple[list[dict[str, Any]], ...] = (
        [
            {"the_id": node, "link": link, "link_since": tx.now}
            for node, link in noticed.states.items()
        ],
        [{"the_id": node, "last_seen_at": at} for node, at in noticed.heard_at.items()],
        [{"the_id": node, "reconnects": many} for node, many in noticed.reconnects.items()],
        [{"the_id": node, "clock_skew": skew} for node, skew in noticed.skews.items()],
    )
    for of_columns in changes:
        nodes.change_all(tx.connection, of_columns)
    node_story.say_all(tx, noticed.told)
    if noticed.states or noticed.told:
        tx.nudge("nodes")
    for node in noticed.states:
        tx.nudge(f"dispatch:{node}")


def note_strange(tx: Tx, node: str, ids: Sequence[str], left_out: int = 0) -> None:
    """A node spoke of attempts that it does not have: where they are other nodes', its story says
    so. What it said was refused. `left_out` times before it spoke of some that nobody looked at.
    """
    others = [
        id_
        for id_, row in attempts.look(tx.connection, ids).items()
        if row.attempt.node not in {None, node}
    ]
    if others:
        named = ", ".join(others[:3]) + (" ..." if len(others) > 3 else "")
        node_story.say(
            tx, node, f"ALARM: spoke of {len(others)} attempts of other nodes: refused ({named})"
        )
        detail = {"attempts": named, "count": str(len(others))}
        if left_out:
            detail["left_out"] = str(left_out)
        audit.refused_of_node(tx, "node.foreign-ids", node, code="foreign-ids", **detail)


def note_refused_stop(tx: Tx, node: str, attempt: str, epoch: int, why: str) -> bool:
    """A node did not stop one of its attempts, because the stop was not ours: somebody else has
    spoken to it. Told once for each reason; of what is not the node's nothing is. Says whether
    there was something to tell.
    """
    row = attempts.look(tx.connection, [attempt]).get(attempt)
    if row is None:
        return False
    if row.attempt.node != node and not decisions.was_given(tx.connection, attempt, node, epoch):
        return False
    text = f"ALARM: the node refused to stop it (epoch {epoch}): {why}"
    if text in decisions.texts(tx.connection, attempt, node):
        return False
    decisions.record(tx.connection, [Decision(tx.now, row.run_id, attempt, node, epoch, text)])
    node_story.say(tx, node, f"ALARM: refused to stop {attempt} (epoch {epoch}): {why}")
    return True


def admission(connection: Connection) -> str | None:
    """Return a word that changes whenever a node loses its right to a link."""
    return nodes.admission(connection)


def let_in(connection: Connection) -> set[str]:
    """Return the nodes that may have a link."""
    return nodes.let_in(connection)


def fleet(connection: Connection) -> tuple[list[Silence], breaker.Breaker | None]:
    """Return every node's link state as last written, and the open breaker."""
    return silences(connection), breaker.standing(connection)


def _lose_old_incarnation(tx: Tx, node: str, incarnation: str) -> None:
    changes = Changes(tx)
    held = attempts.unsettled_of_node(tx.connection, node)
    changes.take(held)
    for row in held:
        if row.incarnation is None or row.incarnation == incarnation:
            continue  # never offered, or offered to this very incarnation
        after = changes.apply(declare_lost(row.attempt, SPOOL_GONE))
        if after.log_state in {"open", "again"}:
            changes.alter(row.id, log_state="gone")
    changes.flush()
    tx.nudge("sealing")
