"""The proof that everything ends (law 8): whatever is not final has an owner, a deadline and a
next action. A pure judgement of one attempt as it stands; the `proof` loop asks each minute.

What this finds is a fault of the product or of the database, never of a person: so it is said
loudly, and nothing is done about it by itself.
"""

from __future__ import annotations

from typing import Final

import msgspec

from fleetwire.core import limits
from fleetwire.core.attempts import State

US: Final = 1_000_000
SLACK_US: Final = round(limits.PROOF_SLACK_S * US)


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt as far as the proof needs it. Times are microseconds since 1970.

    `is_latest`: its task names it, so dispatch and stops find it. `run_ended`: its run is shown
    ended. `node_known`: its node is enrolled. `log_open`: its log is not settled; `log_given_up`:
    and its node has no more of it, so that nobody but the server can settle it.
    """

    attempt: str
    state: State
    queue_deadline: int | None
    node: str | None = None
    node_known: bool = True
    lost_after: int | None = None
    ended_at: int | None = None
    is_latest: bool = True
    run_ended: bool = False
    log_open: bool = True
    log_given_up: bool = False


def objection(one: Standing, now: int) -> str | None:
    """Say why nobody would ever end this, or None where all is in order."""
    if one.state == "pending":
        return _of_unfinished(one, one.queue_deadline, "queue deadline", now)
    if one.state in {"assigned", "running"}:
        if one.node is None:
            return f"is {one.state} and has no node"
        return _of_unfinished(one, one.lost_after, "last deadline", now)
    return _of_log(one, now)


def _of_unfinished(one: Standing, deadline: int | None, name: str, now: int) -> str | None:
    if deadline is None:
        return f"is {one.state} and has no {name}"
    if not one.is_latest:
        return f"is {one.state}, and another attempt of its task counts"
    if one.run_ended:
        return f"is {one.state}, and its run is shown ended"
    late = now - deadline
    if late > SLACK_US:
        return f"is {one.state} {late // US} s after its {name}"
    return None


def _of_log(one: Standing, now: int) -> str | None:
    """An ended attempt's log is its node's to send; where there is none, the server settles it."""
    if not one.log_open or one.ended_at is None or now - one.ended_at <= SLACK_US:
        return None
    if one.log_given_up:
        return "has ended, and its log was given up and is not settled"
    if one.node is None or not one.node_known:
        return "has ended, and waits for the log of a node that is not enrolled"
    return None
