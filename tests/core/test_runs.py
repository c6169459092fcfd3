from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetwire.core import limits
from fleetwire.core.attempts import FINAL, Outcome, State
from fleetwire.core.errors import BadSpec, LimitExceeded, NoNodeMatches
from fleetwire.core.runs import SEVERITY, Target, fold, known_labels, placements, select
from fleetwire.core.specs import RunRequest, Script

SPEC = Script("true")
NODES = [
    Target("2", "web-2", {"os": "linux", "role": "web"}),
    Target("1", "web-1", {"os": "linux", "role": "web"}),
    Target("3", "db-1", {"os": "linux", "role": "db"}),
]

tasks = st.lists(
    st.one_of(
        st.sampled_from([("pending", None), ("assigned", None), ("running", None)]),
        st.sampled_from(
            [
                ("exited", "succeeded"),
                ("exited", "failed"),
                ("exited", "timed_out"),
                ("exited", "canceled"),
                ("lost", "lost"),
                ("refused", "refused"),
                ("expired", "expired"),
                ("canceled", "canceled"),
            ]
        ),
    ),
    min_size=1,
)


@given(tasks)
def test_the_fold_counts_every_task_once(tasks: list[tuple[State, Outcome | None]]) -> None:
    folded = fold(tasks)
    assert folded.counts["total"] == len(tasks)
    assert sum(folded.counts.values()) == 2 * len(tasks)
    done = all(state in FINAL for state, _ in tasks)
    assert (folded.state == "ended") == done
    assert (folded.outcome is not None) == done
    if done:
        worst = min(SEVERITY.index(outcome) for _, outcome in tasks if outcome)
        assert folded.outcome == SEVERITY[worst]
    elif folded.state == "pending":
        assert all(state in {"pending", "assigned"} for state, _ in tasks)


def test_a_run_is_running_from_its_first_move() -> None:
    assert fold([("pending", None), ("assigned", None)]).state == "pending"
    assert fold([("pending", None), ("running", None)]).state == "running"
    assert fold([("pending", None), ("exited", "succeeded")]).state == "running"


def test_selecting_by_label_and_by_name() -> None:
    assert [n.name for n in select(RunRequest(SPEC, selector="role=web"), NODES)] == [
        "web-1",
        "web-2",
    ]
    chosen = select(RunRequest(SPEC, nodes=("db-1", "1", "web-1")), NODES)
    assert [n.name for n in chosen] == ["db-1", "web-1"]
    assert placements(RunRequest(SPEC, selector="os"), chosen) == ["3", "1"]
    assert placements(RunRequest(SPEC, selector="os", any=2), chosen) == [None, None]


def test_nothing_matching_lists_what_exists() -> None:
    with pytest.raises(NoNodeMatches) as raised:
        select(RunRequest(SPEC, selector="os=windows"), NODES)
    assert raised.value.labels == {"os": ["linux"], "role": ["db", "web"]}
    assert "role=db|web" in str(raised.value)
    with pytest.raises(NoNodeMatches, match="no nodes yet"):
        select(RunRequest(SPEC, selector="os"), [])
    with pytest.raises(NoNodeMatches, match="'nope'"):
        select(RunRequest(SPEC, nodes=("web-1", "nope")), NODES)


def test_any_cannot_ask_for_more_than_match() -> None:
    with pytest.raises(BadSpec, match="only 2 nodes match"):
        select(RunRequest(SPEC, selector="role=web", any=3), NODES)


@pytest.mark.limit("nodes_per_run")
def test_a_run_has_at_most_10000_tasks() -> None:
    many = [Target(str(n), f"n{n:05}", {"a": str(n)}) for n in range(limits.NODES_PER_RUN + 1)]
    assert len(select(RunRequest(SPEC, selector="a"), many[:-1])) == limits.NODES_PER_RUN
    with pytest.raises(LimitExceeded, match="10001 nodes"):
        select(RunRequest(SPEC, selector="a"), many)
    assert len(known_labels(many)["a"]) == 20
