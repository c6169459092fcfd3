from __future__ import annotations

from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetwire.core.absences import Absence, Cause, Ending, Known, Life, classify


def known(boot: str = "b1", agent: str = "a1", slept: float = 0.0, **ending: object) -> Known:
    before = Ending(**{"boot_id": "b1", **ending}) if ending else None  # type: ignore[arg-type]
    return Known(boot, Life(agent, 1, slept, before))


@pytest.mark.parametrize(
    ("now", "heard_here", "cause"),
    [
        (known(), True, "network"),
        (known(), False, "server"),
        (known(slept=0.9), True, "network"),
        (known(slept=60.0), True, "suspended"),
        (known(slept=60.0), False, "suspended"),
        (known(agent="a2"), True, "died"),
        (known(agent="a2", left=True), True, "restarted"),
        (known(agent="a2", left=True, oom_kills=3), True, "restarted"),
        (known(agent="a2", oom=True), True, "oom"),
        (known(agent="a2", oom_kills=2), True, "died"),
        (known(boot="b2", agent="a2", left=True), True, "rebooted"),
        (known(boot="b2", agent="a2", left=False), True, "crashed"),
        # It left in order, but before an earlier boot than the one we know of: no word on ours.
        (known(boot="b3", agent="a3", boot_id="b0", left=True), True, "crashed"),
        (known(agent="a3", boot_id="b0", left=True), True, "died"),
        (Known("b1", None), True, "unknown"),
        (Known("b2", None), True, "rebooted"),
    ],
)
def test_what_the_facts_say(now: Known, heard_here: bool, cause: str) -> None:
    found = classify(known(), now, heard_here=heard_here)
    assert found.cause == cause
    assert found.text


def test_a_doubt_about_memory_is_told_as_a_doubt() -> None:
    found = classify(known(), known(agent="a2", oom_kills=2), heard_here=True)
    assert "perhaps for want of memory" in found.text
    assert "2 processes" in found.text


def test_an_agent_too_old_to_say_is_no_riddle() -> None:
    assert classify(Known("b1", None), known(agent="a2"), heard_here=True).cause == "unknown"


words = st.sampled_from(["w1", "w2"])
lives = st.none() | st.builds(
    Life,
    agent=words,
    began=st.just(1),
    slept=st.floats(0, 100),
    before=st.none() | st.builds(Ending, words, st.booleans(), st.booleans(), st.integers(0, 3)),
)
knowns = st.builds(Known, words, lives)


@given(knowns, knowns, st.booleans())
def test_every_return_has_a_cause_and_a_sentence(before: Known, now: Known, here: bool) -> None:
    found = classify(before, now, heard_here=here)
    assert isinstance(found, Absence)
    assert found.cause in get_args(Cause)
    assert found.text[0].islower()
    # A machine that ran on never counts as restarted, and the reverse.
    assert (found.cause in {"rebooted", "crashed"}) == (before.boot_id != now.boot_id)
    if found.cause == "network":
        assert before.life is not None
        assert now.life is not None
        assert before.life.agent == now.life.agent


@given(lives)
def test_a_life_is_the_same_after_the_wire(life: Life | None) -> None:
    encoded = msgspec.json.encode(life)
    assert msgspec.json.decode(encoded, type=Life | None) == life
