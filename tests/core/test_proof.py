"""The proof that everything ends, as a pure judgement (law 8)."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetwire.core.attempts import FINAL
from fleetwire.core.proof import SLACK_US, Standing, objection

NOW = 1_700_000_000_000_000
FINE = {
    "pending": Standing(attempt="a", state="pending", queue_deadline=NOW),
    "assigned": Standing(
        attempt="a", state="assigned", queue_deadline=NOW, node="n", lost_after=NOW
    ),
    "running": Standing(attempt="a", state="running", queue_deadline=NOW, node="n", lost_after=NOW),
    "exited": Standing(attempt="a", state="exited", queue_deadline=NOW, node="n", ended_at=0),
}


@pytest.mark.parametrize("state", FINE)
def test_what_is_in_order_is_not_objected_to(state: str) -> None:
    assert objection(FINE[state], NOW + SLACK_US) is None


@pytest.mark.parametrize(
    ("state", "planted", "says"),
    [
        ("pending", {"queue_deadline": None}, "no queue deadline"),
        ("pending", {"queue_deadline": NOW - SLACK_US - 1}, "after its queue deadline"),
        ("pending", {"is_latest": False}, "another attempt"),
        ("pending", {"run_ended": True}, "shown ended"),
        ("assigned", {"node": None}, "no node"),
        ("running", {"lost_after": None}, "no last deadline"),
        ("running", {"lost_after": NOW - SLACK_US - 1}, "after its last deadline"),
        ("running", {"is_latest": False}, "another attempt"),
        ("assigned", {"run_ended": True}, "shown ended"),
        ("exited", {"log_given_up": True}, "given up"),
        ("exited", {"node_known": False}, "not enrolled"),
    ],
)
def test_each_planted_violation_is_named(state: str, planted: dict[str, object], says: str) -> None:
    why = objection(msgspec.structs.replace(FINE[state], **planted), NOW)
    assert why is not None
    assert says in why


times = st.none() | st.integers(0, 2 * NOW)


@given(
    st.builds(
        Standing,
        attempt=st.just("a"),
        state=st.sampled_from(["pending", "assigned", "running", *sorted(FINAL)]),
        queue_deadline=times,
        node=st.none() | st.just("n"),
        node_known=st.booleans(),
        lost_after=times,
        ended_at=times,
        is_latest=st.booleans(),
        run_ended=st.booleans(),
        log_open=st.booleans(),
        log_given_up=st.booleans(),
    ),
    st.integers(0, 2 * NOW),
)
def test_whatever_passes_has_an_owner_a_deadline_and_a_next_action(one: Standing, now: int) -> None:
    if objection(one, now) is not None:
        return
    if one.state not in FINAL:
        assert one.is_latest  # what stops and dispatch look at
        assert not one.run_ended
        deadline = one.queue_deadline if one.state == "pending" else one.lost_after
        assert deadline is not None
        assert now <= deadline + SLACK_US
        assert one.state == "pending" or one.node is not None
    elif one.log_open and one.ended_at is not None and now > one.ended_at + SLACK_US:
        assert one.node_known
        assert not one.log_given_up
