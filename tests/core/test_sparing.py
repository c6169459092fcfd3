from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleetwire.core.sparing import KEYS, Sparing


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 30)), max_size=80))
def test_nothing_is_lost_and_what_is_written_has_a_bound(asked: list[tuple[str, float]]) -> None:
    sparing = Sparing(3, within_s=60.0, most_of_all=7)
    now = 0.0
    written: list[tuple[str, float]] = []
    told = dict.fromkeys("abc", 0)
    for key, later in asked:
        now += later
        left_out = sparing.take(key, now)
        if left_out is not None:
            written.append((key, now))
            told[key] += 1 + left_out
    counted = {key: sum(one == key for one, _ in asked) for key in "abc"}
    for key in "abc":
        last = sparing.take(key, now + 1000.0 + ord(key) * 100)
        assert last is not None
        assert told[key] + last == counted[key]
    # A stretch begins with the first after the one before is over: no more than two meet in any.
    for _, at in written:
        near = [key for key, when in written if at <= when < at + 60.0]
        assert len(near) <= 2 * 7
        assert all(near.count(key) <= 2 * 3 for key in "abc")


def test_what_came_to_nothing_does_not_count() -> None:
    sparing = Sparing(2, within_s=60.0, most_of_all=3)
    for _ in range(10):
        assert sparing.take("a", 0.0) == 0
        sparing.give_back("a")
    assert [sparing.take("a", 1.0) for _ in range(3)] == [0, 0, None]
    assert [sparing.take("b", 1.0) for _ in range(2)] == [0, None]
    sparing.give_back("never seen")


def test_the_keys_that_are_known_have_a_bound() -> None:
    sparing = Sparing(1, within_s=60.0, most_of_all=10 * KEYS)
    for number in range(2 * KEYS):
        assert sparing.take(str(number), 0.0) == 0
    assert len(sparing._known) == KEYS
    assert sparing.take(str(2 * KEYS - 1), 0.0) is None
