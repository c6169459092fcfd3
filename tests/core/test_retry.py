"""Retry policies as values: whether, when, and never more than asked (P3)."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetwire.core import limits
from fleetwire.core.attempts import Attempt, apply, assign, declare_lost, supersede, wish_stop
from fleetwire.core.errors import BadSpec, InvalidTransition
from fleetwire.core.happenings import Cause, Exited, Started
from fleetwire.core.ids import is_id
from fleetwire.core.retry import RETRIED, US, Planned, Retry, attempt_id, delay_s, plan
from fleetwire.core.specs import Ping, RunRequest, canonical, check_request

NOW = 1_700_000_000 * US
EMPTY = hashlib.sha256(b"").hexdigest()


def running(attempt: str = "a") -> Attempt:
    return apply(assign(Attempt(id=attempt), node="n", epoch=1).attempt, 1, Started(2)).attempt


def ended(code: int = 1, cause: Cause = "exited") -> Attempt:
    return apply(running(), 1, Exited(5, cause, code, None, 1, 0.5, 0, EMPTY)).attempt


def lost() -> Attempt:
    return declare_lost(running(), "its node was deleted").attempt


def policy(**fields: object) -> Retry:
    return Retry(**{"on_failure": True, "on_lost": True, "count": 3, **fields})  # type: ignore[arg-type]  # data of the test


policies = st.builds(
    Retry,
    on_failure=st.booleans(),
    on_lost=st.booleans(),
    count=st.integers(1, limits.RETRY_COUNT),
    backoff=st.floats(0, limits.RETRY_BACKOFF_S),
)
ends = st.sampled_from(
    [
        ended(0), ended(3), ended(1, "deadline"), ended(1, "stopped"), ended(1, "quota"), lost(),
        wish_stop(Attempt(id="a"), "by a test").attempt,
        apply(wish_stop(running(), "x").attempt, 1,
              Exited(5, "exited", 2, None, 1, 0.5, 0, EMPTY)).attempt,
    ]
)  # fmt: skip


def test_nothing_is_tried_again_by_default() -> None:
    assert plan(None, ended(1), 1, NOW) is None
    assert plan(None, lost(), 1, NOW) is None


def test_failures_and_losses_are_asked_for_apart() -> None:
    assert plan(policy(on_lost=False), lost(), 1, NOW) is None
    assert plan(policy(on_failure=False), ended(1), 1, NOW) is None
    assert plan(policy(on_failure=False), lost(), 1, NOW) is not None
    assert plan(policy(on_lost=False), ended(1), 1, NOW) is not None
    assert plan(policy(on_lost=False), ended(1, "deadline"), 1, NOW) is not None
    assert plan(policy(), ended(0), 1, NOW) is None


def test_the_reason_says_which_try_when_and_why() -> None:
    planned = plan(policy(backoff=90), ended(3), 2, NOW)
    assert planned == Planned(
        3,
        NOW + 180 * US,
        "retry 2 of 3 not before 2023-11-14T22:16:20Z: "
        "attempt 2 is failed (ended with exit code 3 after 0.500 s)",
    )
    because = plan(policy(), lost(), 1, NOW)
    assert because is not None
    assert because.reason.endswith("attempt 1 is lost (its node was deleted)")


def test_who_asked_for_a_stop_wants_no_other_try() -> None:
    stopped = wish_stop(running(), "stopped by a person").attempt
    failed = apply(stopped, 1, Exited(5, "exited", 1, None, 1, 0.5, 0, EMPTY)).attempt
    assert failed.outcome == "failed"
    assert plan(policy(), failed, 1, NOW) is None
    assert plan(policy(), declare_lost(stopped, "silence").attempt, 1, NOW) is None


@given(policies, ends, st.integers(1, 200))
def test_never_more_than_asked_and_never_sooner(one: Retry, end: Attempt, number: int) -> None:
    planned = plan(one, end, number, NOW)
    if planned is None:
        return
    assert planned.number == number + 1 <= one.count + 1
    assert end.outcome in RETRIED
    assert end.wish == "run"
    assert one.on_lost if end.outcome == "lost" else one.on_failure
    assert planned.not_before >= NOW + round(min(one.backoff, limits.RETRY_BACKOFF_S) * US)
    assert planned.not_before <= NOW + round(limits.RETRY_BACKOFF_S * US)
    assert str(number) in planned.reason


@given(policies, st.integers(1, limits.RETRY_COUNT - 1))
def test_each_wait_is_at_least_as_long_as_the_one_before(one: Retry, retry: int) -> None:
    assert delay_s(one, retry) <= delay_s(one, retry + 1) <= max(2 * delay_s(one, retry), 0)


@given(st.uuids(), st.integers(2, 101), st.integers(2, 101))
def test_the_same_step_taken_twice_makes_one_attempt(task: object, one: int, other: int) -> None:
    ids = {attempt_id(str(task), number, NOW) for number in (one, one, other)}
    assert len(ids) == len({one, other})
    assert all(is_id(id_) for id_ in ids)


def test_the_place_of_a_lost_attempt_is_taken_and_its_node_is_to_stop_it() -> None:
    after = supersede(lost(), 2)
    assert (after.attempt.state, after.attempt.wish) == ("lost", "stop")
    assert after.note is not None
    assert supersede(after.attempt, 3).note is None
    assert supersede(ended(1), 2).attempt.wish == "run"  # nothing of it lives
    with pytest.raises(InvalidTransition):
        supersede(running(), 2)
    late = apply(after.attempt, 1, Exited(5, "stopped", None, 15, 1, 0.5, 0, EMPTY)).attempt
    assert (late.state, late.outcome) == ("lost", "lost")
    assert late.late_exit is not None


def test_a_stop_of_a_lost_attempt_waits_for_its_node() -> None:
    wished = wish_stop(lost(), "stopped by a person")
    assert (wished.attempt.state, wished.attempt.wish) == ("lost", "stop")
    assert wish_stop(ended(1), "stopped by a person").note is None


def request(**fields: object) -> RunRequest:
    return RunRequest(spec=Ping(), selector="os=linux", **fields)  # type: ignore[arg-type]  # data of the test


@pytest.mark.limit("retry_count")
def test_a_policy_has_a_count_within_its_limit() -> None:
    check_request(request(retry=policy(count=limits.RETRY_COUNT)))
    for count in (0, limits.RETRY_COUNT + 1):
        with pytest.raises(BadSpec, match=r"retry\.count"):
            check_request(request(retry=policy(count=count)))
    with pytest.raises(BadSpec, match="neither"):
        check_request(request(retry=Retry()))


@pytest.mark.limit("retry_backoff_s")
def test_a_policy_waits_within_its_limit() -> None:
    check_request(request(retry=policy(backoff=limits.RETRY_BACKOFF_S)))
    for backoff in (-1.0, limits.RETRY_BACKOFF_S + 1, float("nan")):
        with pytest.raises(BadSpec, match=r"retry\.backoff"):
            check_request(request(retry=policy(backoff=backoff)))


@pytest.mark.limit("lost_after_most_s")
def test_lost_after_has_a_limit() -> None:
    check_request(request(lost_after=0.0))
    check_request(request(lost_after=limits.LOST_AFTER_MOST_S))
    with pytest.raises(BadSpec, match="lost_after"):
        check_request(request(lost_after=limits.LOST_AFTER_MOST_S + 1))


def test_a_key_used_before_an_update_still_fits_after_it() -> None:
    """The bytes of a request without the new fields are those of release 0.1.0."""
    assert canonical(request()) == (
        b'{"any":null,"name":null,"nodes":null,"queue_timeout":86400,"selector":"os=linux",'
        b'"spec":{"grace":10.0,"kind":"ping","timeout":60.0}}'
    )
    assert canonical(request()) != canonical(request(retry=policy()))
    assert canonical(request()) != canonical(request(lost_after=1.0))
    assert canonical(request()) != canonical(request(), "a-project") != canonical(request(), "b")
