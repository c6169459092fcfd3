"""The local policy: what is denied stays denied, whatever else the file says."""

from __future__ import annotations

import string

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from fleetwire.core.policy import (
    ACTIONS,
    LISTS,
    Action,
    Ask,
    Entry,
    Listing,
    ListName,
    Most,
    Policy,
    Switch,
    refusal,
)

NAMES = st.text(string.ascii_lowercase, min_size=1, max_size=2)
ENTRIES = st.lists(st.builds(Entry, NAMES, st.integers(1, 99)), max_size=4).map(tuple)
LISTINGS = st.builds(Listing, st.none() | ENTRIES, ENTRIES, st.integers(1, 99))
POLICIES = st.builds(
    Policy,
    actions=st.dictionaries(
        st.sampled_from(ACTIONS), st.builds(Switch, st.booleans(), st.integers(1, 99))
    ),
    lists=st.dictionaries(st.sampled_from(LISTS), LISTINGS),
    max_timeout=st.none() | st.builds(Most, st.integers(1, 9), st.integers(1, 99)),
)
SPELLINGS = st.lists(NAMES, max_size=2).map(tuple)
ASKS = st.builds(
    Ask,
    actions=st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=2).map(tuple),
    user=SPELLINGS,
    interpreter=SPELLINGS,
    environment=SPELLINGS,
    signer=SPELLINGS,
    timeout=st.integers(1, 10).map(float),
)


def things(ask: Ask, name: ListName) -> tuple[str, ...]:
    """What of the ask a list is about, word for word."""
    return {
        "users": ask.user,
        "interpreters": ask.interpreter,
        "environment": ask.environment,
        "signers": ask.signer,
        "paths": ask.paths,
    }[name]


@given(POLICIES, ASKS, st.data())
def test_deny_wins_over_every_allow(policy: Policy, ask: Ask, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(LISTS))
    if not things(ask, name):
        return
    denied = data.draw(st.sampled_from(things(ask, name)))
    listing = policy.lists.get(name, Listing())
    # Everything is allowed by name, the denied one too: and it is denied.
    allowed = tuple(Entry(text, 1) for text in things(ask, name))
    lists = {
        **policy.lists,
        name: msgspec.structs.replace(
            listing, allow=allowed, deny=(*listing.deny, Entry(denied, 7))
        ),
    }
    assert refusal(msgspec.structs.replace(policy, lists=lists), ask) is not None


@given(POLICIES, ASKS, st.sampled_from(ACTIONS))
def test_a_denied_action_is_denied_whatever_is_allowed(
    policy: Policy, ask: Ask, action: Action
) -> None:
    actions = {**policy.actions, action: Switch(allowed=False, line=3)}
    asked = msgspec.structs.replace(ask, actions=(*ask.actions, action))
    assert refusal(msgspec.structs.replace(policy, actions=actions), asked) is not None


@given(POLICIES, ASKS, st.data())
def test_one_more_deny_never_allows_more(policy: Policy, ask: Ask, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(LISTS))
    listing = policy.lists.get(name, Listing())
    more = msgspec.structs.replace(listing, deny=(*listing.deny, Entry(data.draw(NAMES), 9)))
    stricter = msgspec.structs.replace(policy, lists={**policy.lists, name: more})
    if refusal(policy, ask) is not None:
        assert refusal(stricter, ask) is not None


@given(POLICIES, ASKS)
def test_the_line_of_a_refusal_stands_in_the_policy(policy: Policy, ask: Ask) -> None:
    said = refusal(policy, ask)
    lines = {switch.line for switch in policy.actions.values()}
    for listing in policy.lists.values():
        lines |= {listing.line, *(one.line for one in (*(listing.allow or ()), *listing.deny))}
    if policy.max_timeout is not None:
        lines.add(policy.max_timeout.line)
    assert said is None or said.line in lines


@given(ASKS)
def test_no_policy_allows_everything(ask: Ask) -> None:
    assert refusal(Policy(), ask) is None


def test_an_empty_allow_allows_nothing() -> None:
    policy = Policy(lists={"users": Listing(allow=(), line=4)})
    said = refusal(policy, Ask(actions=("exec",), user=("root", "0")))
    assert said is not None
    assert (said.line, said.why) == (4, "user 'root' is not allowed")


def test_every_spelling_of_a_denied_user_is_denied() -> None:
    policy = Policy(lists={"users": Listing(deny=(Entry("root", 2),))})
    said = refusal(policy, Ask(actions=("exec",), user=("toor", "0", "root")))
    assert said is not None
    assert said.line == 2


def test_environment_names_by_their_beginning() -> None:
    policy = Policy(lists={"environment": Listing(allow=(Entry("APP_*", 1),), line=1)})
    assert refusal(policy, Ask(actions=("exec",), environment=("APP_X",))) is None
    assert refusal(policy, Ask(actions=("exec",), environment=("XAPP_", "APP_X"))) is not None


def test_a_path_root_is_no_prefix_of_text() -> None:
    policy = Policy(lists={"paths": Listing(allow=(Entry("/srv", 1),), line=1)})
    for path, allowed in (("/srv", True), ("/srv/a", True), ("/srv2", False), ("/", False)):
        said = refusal(policy, Ask(actions=("files",), paths=(path,)))
        assert (said is None) is allowed, path


def test_the_longest_timeout_and_one_above() -> None:
    policy = Policy(max_timeout=Most(60, 5))
    assert refusal(policy, Ask(actions=("exec",), timeout=60.0)) is None
    said = refusal(policy, Ask(actions=("exec",), timeout=61.0))
    assert said is not None
    assert said.line == 5
