"""Deleting a node: it may not connect any more, and what it still had is lost with it (5.5)."""

from __future__ import annotations

from typing import Final

import msgspec

from fleetwire.core.attempts import FINAL, declare_lost, give_back
from fleetwire.core.errors import FleetwireError
from fleetwire.core.removal import objection
from fleetwire.server.domain import node_story, restore
from fleetwire.server.domain.changes import Changes
from fleetwire.server.domain.errors import NotFound
from fleetwire.server.domain.nodes import NotWaiting
from fleetwire.server.store import attempts, nodes
from fleetwire.server.store.engine import Tx

DELETED: Final = "its node was deleted"


class NodeAtWork(FleetwireError):
    """The node has a link, so it is not gone: deleting it needs to be meant."""

    code = "node-at-work"


class Deleted(msgspec.Struct, frozen=True):
    """A node that is no more, and how many of its attempts were lost with it."""

    id: str
    name: str
    lost: int


def delete(
    tx: Tx, node: str, *, word: str, by: str, force: bool, only_waiting: bool = False
) -> Deleted:
    """Delete a node. What it may have begun is lost, what it was never offered goes to others,
    and what only it could have run expires; its open link is closed by its next level.

    `word` is used for no other change (as of `nodes.catalogue_changed`), `by` a user's name.
    With `only_waiting` a node that somebody has approved meanwhile stays. Raises NotFound,
    NotWaiting, NodeAtWork.
    """
    row = nodes.lock(tx.connection, node)
    stood = nodes.greeted_before(tx.connection, [node]).get(node)
    if row is None or stood is None:
        raise NotFound(f"There is no node {node}.", hint="fleetwire nodes lists them.")
    if only_waiting and row.admin != "waiting":
        raise NotWaiting(
            f"{row.name} is {row.admin}: it does not wait for approval.",
            hint=f"To end the rights of a node: fleetwire nodes revoke {row.name}.",
        )
    held = attempts.unsettled_of_node(tx.connection, node)
    live = [one for one in held if one.attempt.state not in FINAL]
    against = objection(row.name, stood.link, len(live), force=force)
    if against is not None:
        raise NodeAtWork(
            against,
            hint="Drain it and stop its agent first, or delete it all the same with force: what "
            "it runs is then lost to the record.",
        )
    changes = Changes(tx)
    changes.take(held)
    doubt = restore.standing(tx.connection)
    for one in live:
        if restore.is_held(doubt, one):
            restore.end_waiting(changes, one.id, DELETED, doubt, node=node)
            continue
        back = changes.apply(give_back(one.attempt, DELETED), node=node)
        if back.attempt.state == "pending" and back.target == node:
            restore.end_waiting(changes, one.id, DELETED, doubt, node=node)
        if back.attempt.state in {"assigned", "running"}:
            changes.apply(declare_lost(back.attempt, DELETED))
    for one in held:
        if changes[one.id].log_state in {"open", "again"} and changes[one.id].attempt.node == node:
            changes.alter(one.id, log_state="gone")
    bound = attempts.pending_for_node(tx.connection, node)
    changes.take(bound)
    for one in bound:
        restore.end_waiting(changes, one.id, DELETED, doubt, node=node)
    lost = sum(changes[one.id].attempt.state == "lost" for one in live)
    changes.flush()
    node_story.say(tx, node, f"was deleted by {by}")
    nodes.remove(tx.connection, node, name=row.name, now=tx.now)
    nodes.catalogue_changed(tx.connection, word)
    nodes.admission_changed(tx.connection, word)
    for topic in ("sealing", "nodes", "dispatch", f"node:{node}"):
        tx.nudge(topic)
    return Deleted(node, row.name, lost)
