"""The attempt machine: each rule by example, then all of them against random histories."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fleetwire.core.attempts import (
    FINAL,
    Applied,
    Attempt,
    apply,
    assign,
    declare_lost,
    describe,
    expire,
    give_back,
    is_final,
    offer,
    outcome_of,
    wish_stop,
)
from fleetwire.core.errors import InvalidTransition
from fleetwire.core.happenings import (
    Cause,
    Declined,
    Exited,
    Happening,
    Lost,
    NeverStarted,
    Started,
)

NEW = Attempt(id="a")
STARTED = Started(at=5)


def exited(code: int | None = 0, cause: Cause = "exited", error: str | None = None) -> Exited:
    number = None if code is not None else 9
    return Exited(
        at=9,
        cause=cause,
        exit_code=code,
        signal=number,
        started_at=5,
        duration=1.5,
        length=3,
        sha256="00",
        error=error,
    )


def assigned(epoch: int = 1, *, offered: bool = True) -> Attempt:
    attempt = assign(NEW, node="n", epoch=epoch).attempt
    return offer(attempt).attempt if offered else attempt


RUNNING = apply(assigned(), 1, STARTED).attempt


def test_the_plain_way() -> None:
    assert (RUNNING.state, RUNNING.started_at) == ("running", 5)
    ended = apply(RUNNING, 1, exited()).attempt
    assert (ended.state, ended.outcome, ended.node) == ("exited", "succeeded", "n")
    assert is_final(ended)


@pytest.mark.parametrize(("code", "number"), [(None, None), (0, 9)])
def test_an_exit_has_a_code_or_a_signal(code: int | None, number: int | None) -> None:
    said = {"h": "exited", "at": 2, "cause": "exited", "exit_code": code, "signal": number,
            "started_at": 1, "duration": 0.1, "length": 0, "sha256": "0" * 64}  # fmt: skip
    with pytest.raises(msgspec.ValidationError, match="exactly one"):
        msgspec.convert(said, Exited)


@pytest.mark.parametrize(
    ("exit_", "outcome"),
    [
        (exited(0), "succeeded"),
        (exited(1), "failed"),
        (exited(None), "failed"),
        (exited(0, "deadline"), "timed_out"),
        (exited(None, "stopped"), "canceled"),
        (exited(None, "quota"), "failed"),
    ],
)
def test_outcomes(exit_: Exited, outcome: str) -> None:
    assert outcome_of(exit_) == outcome


def test_reasons_come_from_the_exit() -> None:
    assert apply(RUNNING, 1, exited(127, error="no sh")).attempt.reason == "no sh"
    assert "quota" in str(apply(RUNNING, 1, exited(None, "quota")).attempt.reason)


def test_an_exit_may_come_without_its_start() -> None:
    assert apply(assigned(), 1, exited(3)).attempt.outcome == "failed"


def test_an_exit_recorded_before_the_stop_beats_the_stop() -> None:
    stopping = wish_stop(RUNNING, "by me").attempt
    assert (stopping.state, stopping.wish) == ("running", "stop")
    assert apply(stopping, 1, exited(0)).attempt.outcome == "succeeded"


@pytest.mark.parametrize("epoch", [0, 2, 2**53])
def test_another_epoch_is_evidence_only(epoch: int) -> None:
    after, note = apply(RUNNING, epoch, exited())
    assert after == RUNNING
    assert note is not None
    assert "evidence" in note


def test_duplicates_change_nothing() -> None:
    ended = apply(RUNNING, 1, exited()).attempt
    for again in (STARTED, exited(7), Lost(1, "x"), NeverStarted(1), Declined(1, "x", final=True)):
        assert apply(ended, 1, again) == Applied(ended, None)
    assert apply(RUNNING, 1, STARTED) == Applied(RUNNING, None)


def test_a_late_exit_is_kept_once_and_changes_no_state() -> None:
    lost = declare_lost(RUNNING, "gone").attempt
    late, note = apply(lost, 1, exited(4))
    assert (late.state, late.outcome, late.late_exit) == ("lost", "lost", exited(4))
    assert note is not None
    assert note.startswith("late exit")
    assert apply(late, 1, exited(5)) == Applied(late, None)


def test_the_nodes_word_makes_lost() -> None:
    assert apply(RUNNING, 1, Lost(1, "shim died")).attempt.reason == "shim died"
    assert apply(assigned(), 1, Lost(1, "start unknown")).attempt.state == "lost"
    assert declare_lost(apply(RUNNING, 1, exited()).attempt, "x").note is None
    with pytest.raises(InvalidTransition):
        declare_lost(NEW, "never assigned")


def test_declined_waits_again_or_is_refused() -> None:
    waits = apply(assigned(), 1, Declined(1, "draining", final=False)).attempt
    assert (waits.state, waits.node, waits.reason) == ("pending", None, "draining")
    refused = apply(assigned(), 1, Declined(1, "bad signature", final=True)).attempt
    assert (refused.state, refused.outcome) == ("refused", "refused")
    stopping = wish_stop(assigned(), "me").attempt
    assert apply(stopping, 1, Declined(1, "full", final=False)).attempt.state == "canceled"


def test_a_node_cannot_unsay_a_start() -> None:
    for claim in (NeverStarted(1), Declined(1, "x", final=False), Declined(1, "x", final=True)):
        after, note = apply(RUNNING, 1, claim)
        assert after == RUNNING
        assert note is not None
        assert "evidence" in note


def test_stop_before_it_was_offered_cancels_at_once() -> None:
    for attempt in (NEW, assigned(offered=False)):
        stopped = wish_stop(attempt, "by me").attempt
        assert (stopped.state, stopped.outcome) == ("canceled", "canceled")


def test_stop_after_it_was_offered_waits_for_the_node() -> None:
    stopping = wish_stop(assigned(), "by me").attempt
    assert stopping.state == "assigned"
    assert wish_stop(stopping, "again") == Applied(stopping, None)
    assert apply(stopping, 1, NeverStarted(1)).attempt.state == "canceled"


def test_only_what_was_never_offered_is_given_back_or_expires() -> None:
    fresh = assigned(offered=False)
    assert give_back(fresh, "offline").attempt.state == "pending"
    assert give_back(assigned(), "offline") == Applied(assigned(), None)
    assert give_back(RUNNING, "offline") == Applied(RUNNING, None)
    assert expire(fresh, "late").attempt.outcome == "expired"
    assert expire(NEW, "late").attempt.state == "expired"
    assert expire(assigned(), "late") == Applied(assigned(), None)
    wished = msgspec.structs.replace(fresh, wish="stop")
    assert give_back(wished, "offline").attempt.state == "canceled"


def test_impossible_steps_are_refused() -> None:
    for attempt in (RUNNING, assigned(), wish_stop(NEW, "x").attempt):
        with pytest.raises(InvalidTransition, match="assign"):
            assign(attempt, node="m", epoch=9)
    waits = give_back(assigned(5, offered=False), "x").attempt
    with pytest.raises(InvalidTransition, match="epoch 5"):
        assign(waits, node="m", epoch=5)
    with pytest.raises(InvalidTransition, match="offer"):
        offer(NEW)


happenings: st.SearchStrategy[Happening] = st.one_of(
    st.just(STARTED),
    st.builds(
        exited, st.sampled_from([0, 1, None]), st.sampled_from(["exited", "deadline", "stopped"])
    ),
    st.just(Lost(1, "shim died")),
    st.builds(Declined, st.just(1), st.just("no"), st.booleans()),
    st.just(NeverStarted(1)),
)


@given(happenings)
def test_every_happening_survives_its_json_and_reads_as_one_line(happening: Happening) -> None:
    assert msgspec.json.decode(msgspec.json.encode(happening), type=Happening) == happening
    assert "\n" not in describe(happening)


class AttemptMachine(RuleBasedStateMachine):
    """Any order of steps: final states stay, epochs only grow, at most one outcome."""

    def __init__(self) -> None:
        super().__init__()
        self.attempt = NEW
        self.before = NEW

    def take(self, applied: Applied) -> None:
        self.before, self.attempt = self.attempt, applied.attempt

    @precondition(lambda self: self.attempt.state == "pending" and self.attempt.wish == "run")
    @rule(step=st.integers(min_value=1, max_value=3))
    def assigns(self, step: int) -> None:
        self.take(assign(self.attempt, node="n", epoch=self.attempt.epoch + step))

    @precondition(lambda self: self.attempt.state == "assigned")
    @rule()
    def offers(self) -> None:
        self.take(offer(self.attempt))

    @rule(happening=happenings, back=st.sampled_from([0, 0, 0, 1, -1]))
    def hears(self, happening: Happening, back: int) -> None:
        self.take(apply(self.attempt, self.attempt.epoch - back, happening))

    @rule()
    def stops(self) -> None:
        self.take(wish_stop(self.attempt, "me"))

    @rule()
    def expires(self) -> None:
        self.take(expire(self.attempt, "late"))

    @rule()
    def gives_back(self) -> None:
        self.take(give_back(self.attempt, "offline"))

    @precondition(lambda self: self.attempt.state != "pending")
    @rule()
    def is_lost(self) -> None:
        self.take(declare_lost(self.attempt, "deleted"))

    @invariant()
    def holds(self) -> None:
        before, now = self.before, self.attempt
        assert now.epoch >= before.epoch
        assert (now.outcome is not None) == (now.state in FINAL)
        if before.state in FINAL:
            assert (now.state, now.outcome, now.exit) == (
                before.state,
                before.outcome,
                before.exit,
            )
        if before.wish == "stop":
            assert now.wish == "stop"
        if before.state == "running":
            # P2: what has started is never given to another node.
            assert now.state in {"running", "exited", "lost"}
        if now.state == "canceled":
            assert now.exit is None
        if now.state in {"assigned", "running"}:
            assert now.node is not None
        assert (now.exit is not None) == (now.state == "exited")


TestAttemptMachine = AttemptMachine.TestCase
TestAttemptMachine.settings = settings(max_examples=150, stateful_step_count=30)
