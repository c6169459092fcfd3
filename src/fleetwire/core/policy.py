"""What a node's own administrator allows: the local policy, as a value and a decision.

The server never writes it and cannot change it (promises, section 2, "Local policy"). Everything
that is not named is allowed, so a node without a policy does what it is ordered; a list `allow`
that is there allows nothing else; `deny` wins over every `allow`. A refusal says which line of
the file refused, so that whoever may change it knows where.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Literal, TypeAlias, get_args

import msgspec

Action: TypeAlias = Literal["exec", "containers", "files", "terminal", "updates"]
ACTIONS: Final[tuple[Action, ...]] = get_args(Action)
ListName: TypeAlias = Literal["users", "interpreters", "paths", "environment", "signers"]
LISTS: Final[tuple[ListName, ...]] = get_args(ListName)


class Entry(msgspec.Struct, frozen=True):
    """One name in a list, and the line of the file (from 1) on which it stands."""

    text: str
    line: int


class Listing(msgspec.Struct, frozen=True):
    """Names that are allowed (None: all are) and names that are denied. `line` is where `allow`
    stands, for what it does not name.
    """

    allow: tuple[Entry, ...] | None = None
    deny: tuple[Entry, ...] = ()
    line: int = 0


class Switch(msgspec.Struct, frozen=True):
    """Whether a kind of work is allowed at all."""

    allowed: bool
    line: int


class Most(msgspec.Struct, frozen=True):
    """The most that is allowed: seconds, bytes or a count."""

    value: float
    line: int


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """A policy as it was read. What is absent is allowed, without end.

    `max_timeout` is seconds, `max_output` bytes of one attempt's output, `max_concurrent` attempts
    at once. The last two refuse no order: one is kept by the shim, one is the node's capacity.
    """

    actions: dict[Action, Switch] = {}
    lists: dict[ListName, Listing] = {}
    max_concurrent: Most | None = None
    max_output: Most | None = None
    max_timeout: Most | None = None


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What an order needs. Each name of one thing is given in every spelling by which a policy
    may know it (`python`, `/usr/bin/python3`; `root`, `0`): one that is denied denies it, one that
    is allowed allows it. `paths` are absolute and resolved. `timeout` is seconds.
    """

    actions: tuple[Action, ...]
    user: tuple[str, ...] = ()
    interpreter: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    signer: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    timeout: float = 0.0


class Refusal(msgspec.Struct, frozen=True):
    """The line of the policy that refuses, and what it says."""

    line: int
    why: str


def refusal(policy: Policy, ask: Ask) -> Refusal | None:
    """Return what refuses this, or None when it is allowed. What is denied by name comes first."""
    return next(_denied(policy, ask), None) or next(_not_allowed(policy, ask), None)


def _denied(policy: Policy, ask: Ask) -> Iterator[Refusal]:
    for action in ask.actions:
        switch = policy.actions.get(action)
        if switch is not None and not switch.allowed:
            yield Refusal(switch.line, f"{action} is denied")
    for name, spellings in _things(ask):
        listing = policy.lists.get(name, _EVERYTHING)
        found = _matching(listing.deny, name, spellings)
        if found is not None:
            yield Refusal(found.line, f"{_NOUNS[name]} {spellings[0]!r} is denied")


def _not_allowed(policy: Policy, ask: Ask) -> Iterator[Refusal]:
    for name, spellings in _things(ask):
        listing = policy.lists.get(name, _EVERYTHING)
        if listing.allow is not None and _matching(listing.allow, name, spellings) is None:
            yield Refusal(listing.line, f"{_NOUNS[name]} {spellings[0]!r} is not allowed")
    most = policy.max_timeout
    if most is not None and ask.timeout > most.value:
        yield Refusal(most.line, f"a time-out of {ask.timeout:g} s is above {most.value:g} s")


def _things(ask: Ask) -> Iterator[tuple[ListName, tuple[str, ...]]]:
    """Yield each thing that the order needs, in all its spellings."""
    for name, spellings in (
        ("users", ask.user),
        ("interpreters", ask.interpreter),
        ("signers", ask.signer),
    ):
        if spellings:
            yield name, spellings  # type: ignore[misc]  # (the names are literals)
    for variable in ask.environment:
        yield "environment", (variable,)
    for path in ask.paths:
        yield "paths", (path,)


def _matching(
    entries: tuple[Entry, ...], name: ListName, spellings: tuple[str, ...]
) -> Entry | None:
    matches = _MATCHES.get(name, _is)
    return next(
        (one for one in entries if any(matches(one.text, text) for text in spellings)), None
    )


def _is(entry: str, text: str) -> bool:
    return entry == text


def _begins(entry: str, text: str) -> bool:
    """`APP_*` is every name that begins so; a star stands nowhere else."""
    return text.startswith(entry[:-1]) if entry.endswith("*") else entry == text


def _within(root: str, path: str) -> bool:
    """Whether a path is the root or lies below it: `/srv` has nothing to do with `/srv2`."""
    return path == root or path.startswith(root.rstrip("/") + "/")


_EVERYTHING: Final = Listing()
_MATCHES: Final[dict[ListName, Callable[[str, str], bool]]] = {
    "environment": _begins,
    "paths": _within,
}
_NOUNS: Final[dict[ListName, str]] = {
    "users": "user",
    "interpreters": "interpreter",
    "paths": "path",
    "environment": "environment name",
    "signers": "signer",
}
