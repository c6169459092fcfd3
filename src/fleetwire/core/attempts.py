"""The attempt: one try of a task, the only thing with a state machine.

                    dispatch                 Started
       pending ───────────────▶ assigned ─────────────▶ running
        │  ▲                     │ │ │ │                  │ │
        │  └── never offered, ───┘ │ │ └──────┐           │ └── Exited ──▶ exited
        │      or Declined         │ │        │           │
        │      (not final)         │ │        └─ Exited ──┼──────────────▶ exited
        │                          │ └─ Lost, spool gone ─┴──────────────▶ lost
        ├── stop ───────▶ canceled ◀┘ NeverStarted, or stop before it was offered
        ├── queue deadline ─▶ expired
        ├── (assigned) Declined (final) ─▶ refused
        └── refuse (dispatch) ───────────▶ refused

After a restore (P26): pending or assigned to assigned by `adopt`, to lost by `lose_in_doubt`.

A stop is a wish, not a state (law 5): it changes `wish` and nothing else until the node
speaks. Reports of another epoch are evidence and change nothing (law 6). The first outcome
stands: an exit recorded before the stop beats the stop (P4), an exit of the same epoch that
arrives after `lost` is kept as the late exit.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

from fleetwire.core.errors import InvalidTransition
from fleetwire.core.happenings import Declined, Exited, Happening, Lost, NeverStarted, Started

State: TypeAlias = Literal[
    "pending", "assigned", "running", "exited", "lost", "refused", "expired", "canceled"
]
Wish: TypeAlias = Literal["run", "stop"]
Outcome: TypeAlias = Literal[
    "succeeded", "failed", "timed_out", "canceled", "lost", "refused", "expired"
]
FINAL: Final[frozenset[State]] = frozenset({"exited", "lost", "refused", "expired", "canceled"})

QUOTA_KILLED: Final = "its output passed the spool quota, and the run says kill"
SPOOL_GONE: Final = "spool gone: the node no longer has this attempt's folder"


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one attempt. `node` is set while it is assigned and ever after;
    `offered` says that its order was (or may have been) written to a link.
    """

    id: str
    state: State = "pending"
    wish: Wish = "run"
    epoch: int = 0
    node: str | None = None
    offered: bool = False
    reason: str | None = None
    outcome: Outcome | None = None
    started_at: int | None = None
    exit: Exited | None = None
    late_exit: Exited | None = None


class Applied(NamedTuple):
    """An attempt after a step, and one line for its story, or None when nothing is new."""

    attempt: Attempt
    note: str | None


def is_final(attempt: Attempt) -> bool:
    """Say whether the attempt has its outcome."""
    return attempt.state in FINAL


def assign(attempt: Attempt, *, node: str, epoch: int, because: str = "") -> Applied:
    """pending to assigned: dispatch chose a node, `because`. Epochs only grow (P2)."""
    if attempt.state != "pending" or attempt.wish != "run" or epoch <= attempt.epoch:
        raise _invalid(attempt, f"assign with epoch {epoch}")
    new = msgspec.structs.replace(
        attempt, state="assigned", node=node, epoch=epoch, offered=False, reason=None
    )
    return Applied(new, f"assigned with epoch {epoch}" + (f": {because}" if because else ""))


def offer(attempt: Attempt) -> Applied:
    """The order is about to be written to a link: from here on it may have started."""
    if attempt.state != "assigned":
        raise _invalid(attempt, "offer")
    return Applied(msgspec.structs.replace(attempt, offered=True), None)


def wish_stop(attempt: Attempt, why: str, *, in_doubt: bool = False) -> Applied:
    """Somebody wants it stopped. Ends it at once only where it cannot have started.

    A lost one may still run somewhere: the wish waits for its node. So may one that is `in_doubt`
    (core.restore), whatever the record says of it.
    """
    if attempt.wish == "stop" or (is_final(attempt) and not may_still_run(attempt)):
        return Applied(attempt, None)
    wished = msgspec.structs.replace(attempt, wish="stop")
    unstarted = attempt.state == "pending" or (attempt.state == "assigned" and not attempt.offered)
    if unstarted and not in_doubt:
        return Applied(_canceled(wished, why), f"canceled before it started: {why}")
    return Applied(wished, f"stop asked: {why}")


def may_still_run(attempt: Attempt) -> bool:
    """Say whether it was given up although nobody knows that it has ended (5.5)."""
    return attempt.state == "lost" and attempt.late_exit is None


def supersede(attempt: Attempt, number: int) -> Applied:
    """Attempt `number` of the task takes the place of this ended one. Where this one may still
    run it is to stop, as soon as its node is heard of again (P3).
    """
    if not is_final(attempt):
        raise _invalid(attempt, f"supersede by attempt {number}")
    if not may_still_run(attempt) or attempt.wish == "stop":
        return Applied(attempt, None)
    wished = msgspec.structs.replace(attempt, wish="stop")
    return Applied(wished, f"to be stopped where it still runs: attempt {number} takes its place")


def adopt(attempt: Attempt, *, node: str, epoch: int) -> Applied:
    """A node has begun it under an epoch that this record does not know, because it was given
    after the backup that the record comes from (P26). The node is right: it runs, or ran, there.

    Only what is not known to have begun can be adopted. One that was lost in doubt stays lost.
    """
    if not may_adopt(attempt):
        raise _invalid(attempt, f"adopt epoch {epoch}")
    new = msgspec.structs.replace(attempt, node=node, epoch=epoch, offered=True)
    if attempt.state != "lost":
        new = msgspec.structs.replace(new, state="assigned", reason=None)
    return Applied(new, f"begun there under epoch {epoch}, which was given after the backup")


def may_adopt(attempt: Attempt) -> bool:
    """Say whether a node may be believed that it began this under an epoch we do not know."""
    if attempt.state == "lost":
        return attempt.node is None and attempt.late_exit is None
    return attempt.state in {"pending", "assigned"}


def lose_in_doubt(attempt: Attempt, why: str) -> Applied:
    """pending or assigned to lost: the record is older than the world, and nobody can say whether
    it has run since (P26). It must not run again.
    """
    if attempt.state not in {"pending", "assigned"}:
        return Applied(attempt, None)
    ended = msgspec.structs.replace(attempt, state="lost", outcome="lost", reason=why)
    return Applied(ended, f"lost: {why}")


def refuse(attempt: Attempt, why: str) -> Applied:
    """pending to refused: it can never start as it was asked, whoever is given it."""
    if attempt.state != "pending":
        raise _invalid(attempt, f"refuse ({why})")
    ended = msgspec.structs.replace(attempt, state="refused", outcome="refused", reason=why)
    return Applied(ended, f"refused: {why}")


def expire(attempt: Attempt, why: str) -> Applied:
    """The queue deadline passed while it was pending, or assigned and never offered."""
    if attempt.state == "pending" or (attempt.state == "assigned" and not attempt.offered):
        ended = msgspec.structs.replace(attempt, state="expired", outcome="expired", reason=why)
        return Applied(ended, f"expired: {why}")
    return Applied(attempt, None)


def give_back(attempt: Attempt, why: str) -> Applied:
    """assigned to pending, allowed only where the order was never written to a link (5.5)."""
    if attempt.state != "assigned" or attempt.offered:
        return Applied(attempt, None)
    return _back_to_pending(attempt, why)


def declare_lost(attempt: Attempt, why: str) -> Applied:
    """The node's word, its deletion, or `lost_after`: the only ways to lost (5.5)."""
    if is_final(attempt):
        return Applied(attempt, None)
    if attempt.state == "pending":
        raise _invalid(attempt, f"lost ({why})")
    ended = msgspec.structs.replace(attempt, state="lost", outcome="lost", reason=why)
    return Applied(ended, f"lost: {why}")


def apply(attempt: Attempt, epoch: int, happening: Happening) -> Applied:
    """Take a node's report. Duplicates and reports of another epoch change nothing."""
    what = describe(happening)
    if epoch != attempt.epoch or attempt.state == "pending":
        return Applied(attempt, f"kept as evidence: {what}, of epoch {epoch}")
    if isinstance(happening, Started):
        return _started(attempt, happening)
    if isinstance(happening, Exited):
        return _exited(attempt, happening)
    if is_final(attempt):
        return Applied(attempt, None)
    if isinstance(happening, Lost):
        return declare_lost(attempt, happening.reason)
    if attempt.state == "running":
        # A node that said Started cannot unsay it; its record is kept, its claim is not.
        return Applied(attempt, f"kept as evidence: {what}, although it had started")
    if isinstance(happening, NeverStarted):
        return Applied(_canceled(attempt, "stopped before it started"), what)
    if happening.final:
        ended = msgspec.structs.replace(
            attempt, state="refused", outcome="refused", reason=happening.reason
        )
        return Applied(ended, what)
    if attempt.wish == "stop":
        return Applied(_canceled(attempt, "stopped before it started"), what)
    return _back_to_pending(attempt, happening.reason)


def outcome_of(exited: Exited) -> Outcome:
    """What a person reads for an exit."""
    if exited.cause == "deadline":
        return "timed_out"
    if exited.cause == "stopped":
        return "canceled"
    if exited.cause == "exited" and exited.exit_code == 0:
        return "succeeded"
    return "failed"


def describe(happening: Happening) -> str:
    """One line for the story."""
    match happening:
        case Started():
            return "started"
        case Exited(cause=cause, exit_code=code, signal=number, duration=duration):
            how = f"exit code {code}" if code is not None else f"signal {number}"
            because = "" if cause == "exited" else f" ({cause})"
            return f"ended with {how}{because} after {duration:.3f} s"
        case Lost(reason=reason):
            return f"lost: {reason}"
        case Declined(reason=reason, final=final):
            return f"{'refused' if final else 'declined'} by the node: {reason}"
        case NeverStarted():
            return "stopped before it started"


def signals(exited: Exited) -> list[str]:
    """One line for each signal with which an attempt was ended, in order."""
    sent = (("TERM", exited.term), ("KILL", exited.kill))
    return [
        f"{name} sent {after:.3f} s after its start" for name, after in sent if after is not None
    ]


def _started(attempt: Attempt, happening: Started) -> Applied:
    if attempt.state == "assigned":
        new = msgspec.structs.replace(
            attempt, state="running", offered=True, started_at=happening.at
        )
        return Applied(new, "started")
    return Applied(attempt, None)


def _exited(attempt: Attempt, happening: Exited) -> Applied:
    what = describe(happening)
    if attempt.state in {"assigned", "running"}:
        reason = happening.error
        if happening.cause == "quota":
            reason = QUOTA_KILLED
        new = msgspec.structs.replace(
            attempt,
            state="exited",
            outcome=outcome_of(happening),
            started_at=happening.started_at,
            exit=happening,
            reason=reason,
        )
        return Applied(new, what)
    if attempt.state != "exited" and attempt.late_exit is None:
        late = msgspec.structs.replace(attempt, late_exit=happening)
        return Applied(late, f"late exit: {what}")
    return Applied(attempt, None)


def _back_to_pending(attempt: Attempt, why: str) -> Applied:
    if attempt.wish == "stop":
        return Applied(_canceled(attempt, why), f"canceled before it started: {why}")
    new = msgspec.structs.replace(attempt, state="pending", node=None, offered=False, reason=why)
    return Applied(new, f"waits again: {why}")


def _canceled(attempt: Attempt, why: str) -> Attempt:
    return msgspec.structs.replace(
        attempt, state="canceled", wish="stop", outcome="canceled", reason=why
    )


def _invalid(attempt: Attempt, step: str) -> InvalidTransition:
    return InvalidTransition(
        f"Attempt {attempt.id} cannot take the step {step!r}: it is {attempt.state}, "
        f"wish {attempt.wish}, epoch {attempt.epoch}."
    )
