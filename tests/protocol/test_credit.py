from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetwire.protocol.credit import Credit


def test_sending_takes_and_acknowledging_gives() -> None:
    credit = Credit(100)
    assert credit.position("a") is None
    credit.rewind("a", 10)
    credit.sent("a", 70)
    assert (credit.free, credit.position("a"), credit.durable("a")) == (40, 70, 10)
    credit.acknowledged("a", 50)
    credit.acknowledged("a", 20)
    assert (credit.free, credit.durable("a")) == (80, 50)
    credit.rewind("a", 50)
    assert (credit.free, credit.position("a")) == (100, 50)


def test_what_was_not_sent_cannot_be_acknowledged() -> None:
    credit = Credit(100)
    credit.acknowledged("a", 50)
    credit.rewind("a", 0)
    credit.sent("a", 10)
    credit.acknowledged("a", 99)
    assert (credit.free, credit.durable("a")) == (100, 10)
    credit.forget("a")
    credit.forget("a")
    assert credit.position("a") is None


def test_sending_backwards_is_a_fault_of_ours() -> None:
    credit = Credit(100)
    credit.rewind("a", 10)
    with pytest.raises(AssertionError, match="backwards"):
        credit.sent("a", 5)


steps = st.lists(
    st.tuples(
        st.sampled_from(["rewind", "sent", "acknowledged", "forget"]),
        st.sampled_from("ab"),
        st.integers(0, 50),
    )
)


@given(steps)
def test_free_credit_is_the_limit_less_what_is_under_way(
    steps: list[tuple[str, str, int]],
) -> None:
    credit = Credit(100)
    model: dict[str, tuple[int, int]] = {}
    for step, attempt, amount in steps:
        if step == "rewind":
            credit.rewind(attempt, amount)
            model[attempt] = (amount, amount)
        elif step == "sent" and attempt in model:
            sent, durable = model[attempt]
            credit.sent(attempt, sent + amount)
            model[attempt] = (sent + amount, durable)
        elif step == "acknowledged":
            credit.acknowledged(attempt, amount)
            if attempt in model:
                sent, durable = model[attempt]
                model[attempt] = (sent, max(durable, min(amount, sent)))
        elif step == "forget":
            credit.forget(attempt)
            model.pop(attempt, None)
        under_way = sum(sent - durable for sent, durable in model.values())
        assert credit.free == max(0, 100 - under_way)
        for name in "ab":
            assert credit.position(name) == (model[name][0] if name in model else None)
            assert credit.durable(name) == (model[name][1] if name in model else 0)
