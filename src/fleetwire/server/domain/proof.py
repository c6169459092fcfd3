"""The proof that whatever is not final has an owner, a deadline and a next action (law 8)."""

from __future__ import annotations

from typing import NamedTuple

from fleetwire.core.proof import SLACK_US, objection
from fleetwire.server.store import Connection, proof


class Unproven(NamedTuple):
    """Something that nobody would ever end: an attempt or a run, and why."""

    id: str
    why: str


def unproven(connection: Connection, now: int) -> list[Unproven]:
    """Return what breaks the law, at most a few hundred; there must be nothing."""
    found = [
        Unproven(one.attempt, why)
        for one in proof.suspects(connection, now - SLACK_US)
        if (why := objection(one, now)) is not None
    ]
    return found + [
        Unproven(id_, "is open, and all its tasks have ended")
        for id_ in proof.runs_without_work(connection)
    ]
