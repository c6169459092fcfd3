from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleetwire.core import limits
from fleetwire.core.flapping import came_back, flaps, reconnects


def test_five_returns_within_ten_minutes_are_flapping() -> None:
    times: tuple[float, ...] = ()
    for number in range(5):
        assert not flaps(False, reconnects(times, 100.0 * number))
        times = came_back(times, 100.0 * number)
    assert flaps(False, reconnects(times, 400.0))
    assert flaps(False, reconnects(times, limits.FLAPPING_WITHIN_S))
    assert not flaps(False, reconnects(times, limits.FLAPPING_WITHIN_S + 0.1))


def test_it_stays_so_until_it_is_steady() -> None:
    assert flaps(True, limits.STEADY_RECONNECTS + 1)
    assert not flaps(True, limits.STEADY_RECONNECTS)
    assert not flaps(False, limits.STEADY_RECONNECTS + 1)


def test_only_so_many_are_kept() -> None:
    times: tuple[float, ...] = ()
    for _ in range(limits.FLAPPING_COUNTED + 1):
        times = came_back(times, 1.0)
    assert len(times) == limits.FLAPPING_COUNTED


@given(st.lists(st.floats(0, 400), min_size=1, max_size=60))
def test_the_word_does_not_flap_with_the_link(waits: list[float]) -> None:
    """Once steady, it takes four more returns at least to be called flapping again."""
    now, times, was, returns = 0.0, tuple[float, ...](), False, limits.FLAPPING_RECONNECTS
    for wait in waits:
        now += wait
        word = flaps(was, reconnects(times, now))
        if was and not word:
            returns = 0
        was = word
        times = came_back(times, now)
        returns += 1
        word = flaps(was, reconnects(times, now))
        if word and not was:
            assert returns >= limits.FLAPPING_RECONNECTS - limits.STEADY_RECONNECTS
        was = word


@given(st.lists(st.floats(0, 2000), max_size=50).map(sorted), st.floats(0, 700))
def test_exactly_the_returns_within_the_window_count(at: list[float], later: float) -> None:
    times: tuple[float, ...] = ()
    for one in at:
        times = came_back(times, one)
    now = (at[-1] if at else 0.0) + later
    assert reconnects(times, now) == sum(now - one <= limits.FLAPPING_WITHIN_S for one in at)
