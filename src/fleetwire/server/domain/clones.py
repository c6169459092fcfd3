"""A node whose state directory was copied is quarantined: it has no link, and is given nothing,
until a person has said what to do.

What it was offered and did not report as begun may have begun in the hands of either: it is lost,
and never offered again (P2). What began goes on, seen again once the node is released.
"""

from __future__ import annotations

from typing import Final

from fleetwire.core.attempts import declare_lost, give_back
from fleetwire.core.clones import Step, Stood, Verdict, explain
from fleetwire.core.errors import FleetwireError
from fleetwire.server.domain import audit, node_story
from fleetwire.server.domain.changes import Changes
from fleetwire.server.domain.errors import NotFound
from fleetwire.server.store import attempts, nodes
from fleetwire.server.store.engine import Tx
from fleetwire.server.store.nodes import LinkRow

START_UNKNOWN: Final = (
    "start unknown: the order was on its way when a copy of the node's state directory was noticed"
)


class NotQuarantined(FleetwireError):
    """There is nothing to release."""

    code = "not-quarantined"


def quarantine(tx: Tx, row: LinkRow, verdict: Verdict, stood: Stood, step: Step | None) -> str:
    """Lock a node out because of what its step told; return why."""
    why = explain(verdict, stood, step)
    nodes.change(tx.connection, row.id, admin="quarantined", revision=row.revision + 1)
    nodes.admission_changed(tx.connection, f"{tx.now}:{row.id}")
    node_story.say(tx, row.id, f"ALARM: is now quarantined: {why}")
    audit.say_of_node(tx, "node.quarantine", row.id, why=why)
    changes = Changes(tx)
    held = attempts.live_of_node(tx.connection, row.id)
    changes.take(held)
    for one in held:
        back = changes.apply(give_back(one.attempt, f"node {row.name} is quarantined"), node=row.id)
        if back.attempt.state == "assigned":
            changes.apply(declare_lost(back.attempt, START_UNKNOWN))
            changes.alter(one.id, log_state="gone")
    changes.flush()
    for topic in ("sealing", "nodes", f"node:{row.id}", f"dispatch:{row.id}"):
        tx.nudge(topic)
    return why


def release(tx: Tx, node: str, *, by: str) -> None:
    """Let a quarantined node in again: the first to come with its key is it from then on, whatever
    it was before. `by` is a user's name. Raises NotFound, NotQuarantined.
    """
    row = nodes.lock(tx.connection, node)
    if row is None:
        raise NotFound(f"There is no node {node}.", hint="fleetwire nodes lists them.")
    if row.admin != "quarantined":
        raise NotQuarantined(
            f"Node {row.name} is {row.admin}: there is nothing to release it from.",
            hint=f"fleetwire nodes why {row.name} tells its story.",
        )
    values = {"admin": "active", "revision": row.revision + 1, "mark": "", "steps": 0}
    nodes.change(tx.connection, node, **values)
    node_story.say(tx, node, f"was released from quarantine by {by}: who comes first is it")
    for topic in ("nodes", f"node:{node}", f"dispatch:{node}"):
        tx.nudge(topic)
