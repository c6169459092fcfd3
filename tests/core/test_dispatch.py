from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from fleetwire.core.dispatch import Assign, Expire, NodeView, Wait, Waiting, obstacle, plan


def node(name: str, busy: int = 0, capacity: int = 2, **more: str) -> NodeView:
    return NodeView(
        id=name,
        name=name,
        link=more.get("link", "online"),  # type: ignore[arg-type]  # data of the test
        admin=more.get("admin", "active"),  # type: ignore[arg-type]  # data of the test
        capacity=capacity,
        busy=busy,
    )


def view(*nodes: NodeView) -> dict[str, NodeView]:
    return {one.id: one for one in nodes}


def each(attempt: str, on: str, deadline: int = 100, reason: str | None = None) -> Waiting:
    return Waiting(attempt, "r", 0, deadline, node=on, reason=reason)


def anywhere(attempt: str, *on: str, taken: frozenset[str] = frozenset()) -> Waiting:
    return Waiting(attempt, "r", 0, 100, candidates=frozenset(on), taken=taken)


def test_each_waits_for_its_own_node() -> None:
    nodes = view(node("a", busy=2), node("b"))
    assert plan([each("1", "a"), each("2", "b")], nodes, 0) == [
        Wait("1", "node a is at capacity (2 of 2 running)"),
        Assign("2", "b"),
    ]


def test_reasons_name_the_node() -> None:
    assert obstacle(node("a", link="offline"), 0) == "node a is offline"
    assert obstacle(node("a", admin="draining"), 0) == "node a is draining"
    assert obstacle(node("a", link="unstable"), 0) is None
    assert plan([each("1", "gone")], {}, 0) == [Wait("1", "its node is gone")]
    assert plan([anywhere("1")], {}, 0) == [Wait("1", "no node matches the selector now")]
    assert plan([anywhere("1", "gone")], {}, 0) == [Wait("1", "no node matches the selector now")]


def test_an_unchanged_reason_is_not_recorded_again() -> None:
    waiting = each("1", "a", reason="node a is offline")
    assert plan([waiting], view(node("a", link="offline")), 0) == []


def test_the_queue_deadline_ends_the_wait_with_the_last_reason() -> None:
    waiting = each("1", "a", deadline=50, reason="node a is offline")
    (ended,) = plan([waiting], view(node("a")), 50)
    assert isinstance(ended, Expire)
    assert "node a is offline" in ended.reason
    (first,) = plan([each("1", "a", deadline=50)], view(node("a")), 50)
    assert isinstance(first, Expire)
    assert "none" in first.reason


def test_any_takes_the_least_loaded_by_share() -> None:
    nodes = view(node("a", busy=1, capacity=2), node("b", busy=2, capacity=8), node("c", 2))
    assert plan([anywhere("1", "a", "b", "c")], nodes, 0) == [Assign("1", "b")]


def test_any_never_takes_a_node_twice_for_one_run() -> None:
    nodes = view(node("a", capacity=9), node("b", capacity=9), node("c", busy=9, capacity=9))
    waiting = [anywhere(str(n), "a", "b", "c") for n in range(3)]
    assert plan(waiting, nodes, 0) == [
        Assign("0", "a"),
        Assign("1", "b"),
        Wait("2", "node c is at capacity (9 of 9 running)"),
    ]
    taken = anywhere("1", "a", "b", taken=frozenset({"a"}))
    assert plan([taken], nodes, 0) == [Assign("1", "b")]


def test_many_obstacles_are_cut_short() -> None:
    nodes = view(*(node(name, admin="disabled") for name in "abcde"))
    (waits,) = plan([anywhere("1", *"abcde")], nodes, 0)
    assert isinstance(waits, Wait)
    assert waits.reason.endswith("node c is disabled (and 2 more)")


nodes_views = st.lists(
    st.builds(
        NodeView,
        id=st.sampled_from("abcd"),
        name=st.just("n"),
        link=st.sampled_from(["online", "unstable", "offline"]),
        admin=st.sampled_from(["active", "draining", "disabled"]),
        capacity=st.integers(1, 3),
        busy=st.integers(0, 3),
    ),
    unique_by=lambda one: one.id,
).map(lambda nodes: {one.id: one for one in nodes})
waitings = st.lists(
    st.builds(
        Waiting,
        attempt=st.uuids().map(str),
        run=st.sampled_from("xy"),
        epoch=st.just(0),
        queue_deadline=st.sampled_from([5, 100]),
        node=st.sampled_from([None, "a", "b"]),
        candidates=st.frozensets(st.sampled_from("abcd")),
    ),
    unique_by=lambda one: one.attempt,
)


@given(waitings, nodes_views)
def test_a_plan_never_overfills_and_never_uses_what_takes_no_start(
    waiting: list[Waiting], nodes: dict[str, NodeView]
) -> None:
    by_id = {one.attempt: one for one in waiting}
    decisions = plan(waiting, nodes, 10)
    assert len({decision.attempt for decision in decisions}) == len(decisions)
    load = {one.id: one.busy for one in nodes.values()}
    used: dict[str, list[str]] = {}
    for decision in decisions:
        asked = by_id[decision.attempt]
        if isinstance(decision, Assign):
            chosen = nodes[decision.node]
            assert obstacle(chosen, load[chosen.id]) is None
            load[chosen.id] += 1
            assert asked.node == chosen.id if asked.node else chosen.id in asked.candidates
            if asked.node is None:
                used.setdefault(asked.run, []).append(chosen.id)
        elif isinstance(decision, Expire):
            assert asked.queue_deadline <= 10
        else:
            assert decision.reason
    for taken in used.values():
        assert len(set(taken)) == len(taken)
    # Nothing that could start is left waiting: planning again assigns nothing new.
    left = [one for one in waiting if not _decided(one, decisions)]
    after = {k: msgspec.structs.replace(v, busy=load[k]) for k, v in nodes.items()}
    again = [msgspec.structs.replace(one, taken=frozenset(used.get(one.run, ()))) for one in left]
    assert not [d for d in plan(again, after, 10) if isinstance(d, Assign)]


def _decided(one: Waiting, decisions: list[Assign | Wait | Expire]) -> bool:
    return any(d.attempt == one.attempt and not isinstance(d, Wait) for d in decisions)


def test_nothing_is_placed_anew_while_it_is_held() -> None:
    nodes = view(node("a"), node("b"))
    again = msgspec.structs.replace(anywhere("1", "a", "b"), epoch=7)
    bound = msgspec.structs.replace(each("2", "a"), epoch=7)
    first = anywhere("3", "a", "b")
    assert plan([again, bound, first], nodes, 0, hold="the breaker is open") == [
        Wait("1", "the breaker is open"),
        Assign("2", "a"),  # back to the node it is bound to: nothing is moved
        Assign("3", "b"),
    ]
    assert plan([again], nodes, 0) == [Assign("1", "a")]


def test_no_other_try_of_a_task_is_placed_while_it_is_held() -> None:
    nodes = view(node("a"), node("b"))
    bound = msgspec.structs.replace(each("1", "a"), number=2)
    free = msgspec.structs.replace(anywhere("2", "a", "b"), number=3)
    held = plan([bound, free], nodes, 0, hold="the breaker is open")
    assert held == [Wait("1", "the breaker is open"), Wait("2", "the breaker is open")]
    assert plan([bound, free], nodes, 0) == [Assign("1", "a"), Assign("2", "b")]


def test_any_takes_a_steady_node_first() -> None:
    nodes = view(node("a", link="unstable"), node("b", busy=1))
    assert plan([anywhere("1", "a", "b")], nodes, 0) == [Assign("1", "b")]
    full = view(node("a", link="unstable"), node("b", busy=2))
    assert plan([anywhere("1", "a", "b")], full, 0) == [Assign("1", "a")]


@given(waitings, nodes_views)
def test_an_unstable_node_is_used_only_where_no_steady_one_has_room(
    waiting: list[Waiting], nodes: dict[str, NodeView]
) -> None:
    by_id = {one.attempt: one for one in waiting}
    load = {one.id: one.busy for one in nodes.values()}
    used: dict[str, set[str]] = {}
    for decision in plan(waiting, nodes, 10):
        if not isinstance(decision, Assign):
            continue
        asked = by_id[decision.attempt]
        mine = used.setdefault(asked.run, set()) if asked.node is None else set[str]()
        if asked.node is None and nodes[decision.node].link == "unstable":
            steady = [
                nodes[id_] for id_ in asked.candidates - mine
                if id_ in nodes and nodes[id_].link == "online"
            ]  # fmt: skip
            assert all(obstacle(one, load[one.id]) is not None for one in steady)
        load[decision.node] += 1
        mine.add(decision.node)
