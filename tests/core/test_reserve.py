from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleetwire.core import limits
from fleetwire.core.reserve import Bounds, bounds, decide

disks = st.integers(1, 1 << 44)
shares = st.floats(0, 1)


def test_the_bounds_of_a_usual_disk() -> None:
    assert bounds(100 << 30) == Bounds(limits.RESERVE_BYTES, limits.FLOOR_BYTES, 2 << 20)
    assert bounds(64 << 20) == Bounds(4 << 20, 8 << 20, 512 << 10)


@given(disks, shares, shares, st.booleans())
def test_what_is_held_back(disk: int, free_share: float, held_share: float, grows: bool) -> None:
    known = bounds(disk)
    held = int(known.reserve * held_share)
    free = int((disk - held) * free_share)
    room = decide(known, free=free, held=held, grows=grows)
    left = free + held - room.held
    assert 0 <= room.held <= known.reserve
    assert left >= min(known.working, free + held)  # never is working room held back
    if room.held < known.reserve:
        assert left < 2 * known.working + known.reserve % known.working  # no more than it takes
    if room.grows:
        assert room.held == known.reserve
        assert left >= known.floor


@given(disks, shares, shares, st.booleans())
def test_it_settles_at_once(disk: int, free_share: float, held_share: float, grows: bool) -> None:
    known = bounds(disk)
    held = int(known.reserve * held_share)
    free = int((disk - held) * free_share)
    room = decide(known, free=free, held=held, grows=grows)
    again = decide(known, free=free + held - room.held, held=room.held, grows=room.grows)
    assert again == room


@given(disks, st.lists(shares, min_size=2, max_size=2), st.booleans())
def test_more_space_never_means_less(disk: int, two: list[float], grows: bool) -> None:
    known = bounds(disk)
    little, much = (int(disk * share) for share in sorted(two))
    one = decide(known, free=little, held=0, grows=grows)
    other = decide(known, free=much, held=0, grows=grows)
    assert one.held <= other.held
    assert one.grows <= other.grows


def test_what_stopped_goes_on_later_than_it_stopped() -> None:
    known = bounds(100 << 30)
    free = known.floor
    assert decide(known, free=free, held=known.reserve, grows=True).grows
    assert not decide(known, free=free, held=known.reserve, grows=False).grows
    assert decide(known, free=free + free // 4, held=known.reserve, grows=False).grows
