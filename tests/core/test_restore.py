"""Doubt after a restore, as pure rules (P26)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleetwire.core.attempts import Attempt, adopt, apply, assign, lose_in_doubt, may_adopt
from fleetwire.core.dispatch import NodeView, Wait, Waiting, plan
from fleetwire.core.happenings import Exited, Started
from fleetwire.core.leases import EPOCH_MAX, generation_of, next_epoch
from fleetwire.core.restore import FIRST_HOUR, US, Doubt, generation_to_begin, held, is_foreign

HOUR = 3600 * US
DOUBT = Doubt("m", {"1": "a", "2": "b"})
EXITED = Exited(5, "exited", 3, None, 1, 0.5, 0, "")


def test_only_what_was_there_before_is_held() -> None:
    assert held(None, "a", "1") is None
    assert held(DOUBT, "m", "1") is None
    assert held(DOUBT, "z", None) is None
    assert "held until a has said" in str(held(DOUBT, "l", "1"))
    assert held(DOUBT, "l", "3") is None
    assert "held until a, b has said" in str(held(DOUBT, "l", None))
    many = Doubt("m", {str(n): f"n{n}" for n in range(9)})
    assert "n0, n1, n2 and 6 more" in str(held(many, "l", None))


def test_what_is_held_goes_nowhere() -> None:
    node = NodeView("1", "a", "online", "active", 2, 0)
    (decision,) = plan([Waiting("l", "r", 0, 100, node="1", held="because")], {"1": node}, 0)
    assert decision == Wait("l", "because")


@given(st.integers(1, 2**21 - 2), st.booleans(), st.integers(0, 60 * 366 * 24))
def test_each_process_begins_above_all_that_was_given(
    stored: int, is_used: bool, hours: int
) -> None:
    now = (FIRST_HOUR + hours) * HOUR
    begun = generation_to_begin(stored, is_used=is_used, now=now)
    assert begun >= stored + is_used
    assert begun >= min(hours, stored + is_used)
    assert next_epoch(begun, 2**32 - 1) <= EPOCH_MAX
    # A copy of the record that is put back an hour later or more goes past what was given since.
    assert generation_to_begin(stored, is_used=is_used, now=now + HOUR) > hours


@given(st.integers(0, EPOCH_MAX), st.integers(0, 2**21 - 1))
def test_only_an_earlier_generation_is_foreign(epoch: int, generation: int) -> None:
    assert is_foreign(epoch, generation) == (epoch > 0 and generation_of(epoch) < generation)


def test_what_a_node_began_is_taken_as_it_is() -> None:
    pending = Attempt(id="a", reason="waits")
    taken = adopt(pending, node="n", epoch=7).attempt
    assert (taken.state, taken.node, taken.epoch, taken.offered) == ("assigned", "n", 7, True)
    ended = apply(apply(taken, 7, Started(1)).attempt, 7, EXITED).attempt
    assert ended.outcome == "failed"
    assert not may_adopt(ended)
    # Given again by the restored record, under an epoch that the node has refused to start.
    again = assign(pending, node="n", epoch=9).attempt
    assert adopt(again, node="n", epoch=7).attempt.epoch == 7


def test_what_was_lost_in_doubt_stays_lost_and_its_end_is_kept() -> None:
    lost = lose_in_doubt(Attempt(id="a"), "nobody knows").attempt
    assert (lost.state, lost.outcome) == ("lost", "lost")
    late = apply(adopt(lost, node="n", epoch=7).attempt, 7, EXITED).attempt
    assert (late.state, late.late_exit) == ("lost", EXITED)
    assert not may_adopt(late)
    assert lose_in_doubt(late, "again").note is None
