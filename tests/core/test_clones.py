"""Steps from link to link: no crash at any instant is an alarm, and no copy goes unnoticed."""

from __future__ import annotations

import copy
import itertools

from hypothesis import given
from hypothesis import strategies as st

from fleetwire.core.clones import Step, Stood, Verdict, explain, first, judge, next_step

MARKS = (f"{number:032x}" for number in itertools.count())


class Node:
    """A state directory and the agent on it: `record` is durable, `taken` may be lost."""

    def __init__(self) -> None:
        self.record: Step | None = None
        self.taken = False

    def begin(self) -> Step:
        if self.record is None:
            self.record = first(next(MARKS))
        else:
            self.record = next_step(self.record, next(MARKS), taken=self.taken)
        self.taken = False
        return self.record


class Server:
    def __init__(self) -> None:
        self.stood = Stood()

    def take(self, step: Step) -> Verdict:
        verdict = judge(self.stood, step)
        if verdict in {"taken", "behind"}:
            self.stood = Stood(step.end, step.count)
        return verdict


def link(node: Node, server: Server, *, hello: bool = True, answer: bool = True) -> Verdict | None:
    """Try to link once: the hello may get lost, or its answer."""
    step = node.begin()
    if not hello:
        return None
    verdict = server.take(step)
    if answer and verdict in {"taken", "behind"}:
        node.taken = True
    return verdict


# Where it dies: before the hello, between the server's commit and its answer, after a note that
# the next crash loses, or not at all.
CRASHES = st.lists(st.sampled_from(["no hello", "no answer", "note lost", "whole"]), max_size=40)


@given(CRASHES)
def test_no_crash_on_either_side_is_an_alarm(crashes: list[str]) -> None:
    node, server = Node(), Server()
    for crash in crashes:
        verdict = link(node, server, hello=crash != "no hello", answer=crash != "no answer")
        assert verdict in {None, "taken"}
        if crash == "note lost":
            node.taken = False
    assert link(node, server) == "taken"


@given(CRASHES, CRASHES, st.lists(st.booleans(), min_size=1, max_size=30))
def test_of_two_copies_the_second_to_link_anew_is_noticed(
    before: list[str], between: list[str], turns: list[bool]
) -> None:
    original, server = Node(), Server()
    for crash in before:
        link(original, server, hello=crash != "no hello", answer=crash != "no answer")
    link(original, server)
    other = copy.copy(original)
    for crash in between:
        link(original, server, hello=crash != "no hello", answer=crash != "no answer")
    link(other, server)
    alarms = [link(original if turn else other, server) for turn in turns]
    if True in turns and False in turns:
        link(original, server)
        alarms += [link(other, server), link(original, server)]
        assert {"copied", "older"} & set(alarms)


def test_a_directory_put_back_is_older() -> None:
    node, server = Node(), Server()
    link(node, server)
    backup = copy.copy(node)
    for _ in range(3):
        link(node, server)
    assert link(backup, server) == "older"
    assert link(node, server) == "taken"


@given(st.integers(1, 20), st.integers(1, 20))
def test_a_server_put_back_is_behind_and_no_node_is_blamed(before: int, since: int) -> None:
    node, server = Node(), Server()
    for _ in range(before):
        link(node, server)
    stood = server.stood
    for _ in range(since):
        link(node, server)
    server.stood = stood
    assert link(node, server) == "behind"
    assert link(node, server) == "taken"


def test_a_thief_with_any_number_is_noticed_when_the_original_comes() -> None:
    node, server = Node(), Server()
    for _ in range(3):
        link(node, server)
    thief = Step(10**9, next(MARKS), next(MARKS))
    assert server.take(thief) == "behind"
    assert link(node, server) == "older"


def test_who_has_no_steps_does_not_pass_for_one_who_has() -> None:
    assert judge(Stood(), None) == "taken"  # never had any: an agent of before
    assert judge(Stood("a" * 32, 3), None) == "older"
    for verdict in ("older", "copied"):
        text = explain(verdict, Stood("a" * 32, 3), None)
        assert "fleetwire nodes release" in text
