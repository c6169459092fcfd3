from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleetwire.agent import backoff

CHANCE = st.floats(0, 1, exclude_max=True)


@given(st.integers(1, 10_000), CHANCE)
def test_full_jitter_within_its_bounds(failures: int, chance: float) -> None:
    wait = backoff.delay_s(failures, initial_s=1.0, most_s=60.0, chance=lambda: chance)
    assert 0.1 <= wait <= 60.0
    if failures == 1:
        assert 0.2 <= wait <= 1.0


def test_it_grows_to_the_most() -> None:
    ceilings = [
        backoff.delay_s(n, initial_s=1.0, most_s=60.0, chance=lambda: 1.0) for n in range(1, 10)
    ]
    assert ceilings == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_what_the_server_asks_for() -> None:
    assert backoff.asked_delay_s("full, retry_after=7", lambda: 0.0) == 7.0
    assert backoff.asked_delay_s("retry_after=2.5", lambda: 1.0) == 3.0
    assert backoff.asked_delay_s("retry_after=999999999", lambda: 0.0) == 3600.0
    assert backoff.asked_delay_s("later", lambda: 0.0) is None


@given(CHANCE)
def test_slow(chance: float) -> None:
    assert 30.0 <= backoff.slow_delay_s(lambda: chance) <= 60.0
