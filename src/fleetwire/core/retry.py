"""Retry: whether an ended attempt gets a successor, and when (promise P3).

A retry is a policy of the run, never a default: an attempt that failed or was lost stays what it
is unless its run says otherwise. The successor is a new attempt of the same task with an id and
an epoch of its own, so that no attempt is ever started twice (law 6). After `lost` the old one
may still run where nobody hears it: its node is told to stop it on first contact, however late,
and until then both may run at once. Who cannot bear that does not ask for `on_lost`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import Final, NamedTuple

import msgspec

from fleetwire.core import limits
from fleetwire.core.attempts import Attempt, Outcome, describe
from fleetwire.core.ids import RANDOM_BYTES, make_id

US: Final = 1_000_000
FAILURES: Final[frozenset[Outcome]] = frozenset({"failed", "timed_out"})
RETRIED: Final[frozenset[Outcome]] = FAILURES | {"lost"}
"""Outcomes after which a policy may try again: what was refused, expired or stopped is decided."""


class Retry(msgspec.Struct, frozen=True):
    """When a task is tried again. `count` is how many times beyond the first attempt; `backoff`
    the seconds before the first of them, twice as long before each further one.
    """

    on_failure: bool = False
    on_lost: bool = False
    count: int = 1
    backoff: float = limits.RETRY_BACKOFF_DEFAULT_S

    def __post_init__(self) -> None:
        if isinstance(self.backoff, int):  # one form, as after the wire (specs._Timed)
            msgspec.structs.force_setattr(self, "backoff", float(self.backoff))


class Planned(NamedTuple):
    """The next attempt: its number, not before when (microseconds since 1970), and why it waits."""

    number: int
    not_before: int
    reason: str


def wants(policy: Retry, outcome: Outcome | None) -> bool:
    """Say whether a policy tries again after this outcome."""
    if outcome in FAILURES:
        return policy.on_failure
    return outcome == "lost" and policy.on_lost


def delay_s(policy: Retry, retry: int) -> float:
    """Return the seconds to wait before retry number `retry`, counted from 1."""
    return min(policy.backoff * 2.0 ** min(retry - 1, 64), limits.RETRY_BACKOFF_S)


def plan(policy: Retry | None, ended: Attempt, number: int, now: int) -> Planned | None:
    """Return the attempt that follows attempt `number`, which has ended, or None.

    Whoever asked for a stop wants no other try, whatever the outcome.
    """
    if policy is None or ended.wish == "stop" or number > policy.count:
        return None
    if not wants(policy, ended.outcome):
        return None
    not_before = now + round(delay_s(policy, number) * US)
    why = ended.reason if ended.exit is None else describe(ended.exit)
    how = str(ended.outcome).replace("_", " ") + (f" ({why})" if why else "")
    until = dt.datetime.fromtimestamp(not_before // US, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    reason = f"retry {number} of {policy.count} not before {until}: attempt {number} is {how}"
    return Planned(number + 1, not_before, reason)


def attempt_id(task: str, number: int, now: int) -> str:
    """Return the id of attempt `number` of a task. It follows from these alone, so that the same
    step taken twice cannot make two attempts.
    """
    digest = hashlib.sha256(f"{task} {number}".encode("ascii")).digest()
    return make_id(now, digest[:RANDOM_BYTES])
