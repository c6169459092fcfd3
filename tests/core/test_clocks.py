from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleetwire.core import limits
from fleetwire.core.clocks import is_news, skew_warning


def test_a_clock_within_the_limit_is_fine() -> None:
    assert skew_warning(None) is None
    assert skew_warning(limits.CLOCK_SKEW_S) is None
    assert skew_warning(-limits.CLOCK_SKEW_S) is None


def test_the_side_is_told() -> None:
    assert skew_warning(31.24) == "its clock is 31.2 s ahead of the server's"
    assert skew_warning(-7.0) == "its clock is 7.0 s behind the server's"


def test_a_beat_that_was_delayed_is_no_news() -> None:
    assert is_news(None, 0.0)
    assert not is_news(0.01, 0.3)
    assert is_news(0.01, 0.6)
    assert not is_news(3600.0, 3700.0)
    assert is_news(4.9, 5.1)


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_what_is_shown_never_hides_a_warning(told: float, skew: float) -> None:
    if not is_news(told, skew):
        assert (skew_warning(told) is None) == (skew_warning(skew) is None)
