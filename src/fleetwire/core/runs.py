"""A run is a fold over its tasks, a task is its latest attempt (law 5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from fleetwire.core import limits
from fleetwire.core.attempts import Outcome, State
from fleetwire.core.errors import BadSpec, LimitExceeded, NoNodeMatches
from fleetwire.core.labels import parse_selector
from fleetwire.core.specs import RunRequest

RunState: TypeAlias = Literal["pending", "running", "ended"]

# The worst outcome names the run's: what needs a person first stands first.
SEVERITY: Final[tuple[Outcome, ...]] = (
    "failed",
    "timed_out",
    "lost",
    "refused",
    "expired",
    "canceled",
    "succeeded",
)
LABELS_SHOWN: Final = 20


class Target(msgspec.Struct, frozen=True):
    """A node as a selector sees it."""

    id: str
    name: str
    labels: Mapping[str, str]


class Fold(msgspec.Struct, frozen=True):
    """A run's state and outcome, and how many of its tasks stand where."""

    state: RunState
    outcome: Outcome | None
    counts: dict[str, int]


def fold(tasks: Iterable[tuple[State, Outcome | None]]) -> Fold:
    """Fold the (state, outcome) of each task's latest attempt."""
    counts = no_counts()
    for state, outcome in tasks:
        counts["total"] += 1
        counts[outcome or state] += 1
    return fold_counts(counts)


def no_counts() -> dict[str, int]:
    """Return the counts of a run without tasks."""
    return dict.fromkeys(("total", "pending", "assigned", "running", *SEVERITY[::-1]), 0)


def fold_counts(counts: dict[str, int]) -> Fold:
    """Fold tasks that are already counted: a change of one task costs the same in a run of
    2,000 tasks as in a run of one.
    """
    open_tasks = counts["pending"] + counts["assigned"] + counts["running"]
    if open_tasks:
        moved = open_tasks < counts["total"] or counts["running"] > 0
        return Fold("running" if moved else "pending", None, counts)
    return Fold("ended", next((o for o in SEVERITY if counts[o]), "succeeded"), counts)


def select(request: RunRequest, nodes: Sequence[Target]) -> list[Target]:
    """Return the nodes a request means, by name, or raise NoNodeMatches with what exists."""
    chosen = (
        _by_selector(request.selector, nodes)
        if request.selector is not None
        else _by_name(request.nodes or (), nodes)
    )
    if len(chosen) > limits.NODES_PER_RUN:
        raise LimitExceeded(
            f"The selector matches {len(chosen)} nodes.",
            hint=f"A run has at most {limits.NODES_PER_RUN} tasks; narrow the selector.",
            field="selector",
        )
    if request.any is not None and request.any > len(chosen):
        raise BadSpec(
            f"any is {request.any}, but only {len(chosen)} nodes match.",
            hint=f"Ask for at most {len(chosen)}.",
            field="any",
        )
    return sorted(chosen, key=lambda node: node.name)


def placements(request: RunRequest, chosen: Sequence[Target]) -> list[str | None]:
    """Return the node of each task: every chosen one, or None N times (`any`: dispatch picks)."""
    if request.any is not None:
        return [None] * request.any
    return [node.id for node in chosen]


def known_labels(nodes: Iterable[Target]) -> dict[str, list[str]]:
    """Return the label keys that exist, with up to 20 values each, for error messages."""
    known: dict[str, set[str]] = {}
    for node in nodes:
        for key, value in node.labels.items():
            known.setdefault(key, set()).add(value)
    return {key: sorted(values)[:LABELS_SHOWN] for key, values in sorted(known.items())}


def _by_selector(selector: str, nodes: Sequence[Target]) -> list[Target]:
    matches = parse_selector(selector)
    chosen = [node for node in nodes if matches(node.labels)]
    if chosen:
        return chosen
    labels = known_labels(nodes)
    if not nodes:
        raise NoNodeMatches(
            "There are no nodes yet.",
            labels=labels,
            hint="Enrol one: fleetwire tokens create --enrolment, then fleetwire agent.",
        )
    listed = "; ".join(f"{key}={'|'.join(values[:5])}" for key, values in labels.items())
    raise NoNodeMatches(
        f"No node matches {selector[:200]!r}.", labels=labels, hint=f"Labels that exist: {listed}."
    )


def _by_name(wanted: Sequence[str], nodes: Sequence[Target]) -> list[Target]:
    known = {node.name: node for node in nodes} | {node.id: node for node in nodes}
    missing = [name for name in wanted if name not in known]
    if missing:
        raise NoNodeMatches(
            f"There is no node named {', '.join(repr(name[:80]) for name in missing[:5])}.",
            labels=known_labels(nodes),
            hint="fleetwire nodes lists them.",
        )
    return list({known[name].id: known[name] for name in wanted}.values())
