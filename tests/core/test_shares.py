from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetwire.core.shares import Shares, origin


@pytest.mark.parametrize(
    ("address", "stands_for"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::4", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
        ("", ""),
        (None, ""),
    ],
)
def test_whom_an_address_stands_for(address: str | None, stands_for: str) -> None:
    assert origin(address) == stands_for


def test_the_richest_gives_its_oldest_to_who_would_still_have_fewer() -> None:
    shares: Shares[int] = Shares()
    for item in range(5):
        shares.add("many", item)
    shares.add("few", 9)
    assert shares.to_give_way("many") is None
    assert shares.to_give_way("few") == 0
    assert shares.remove("many", 0)
    assert not shares.remove("many", 0)
    assert not shares.remove("nobody", 0)
    for item in (1, 2):
        shares.remove("many", item)
    assert shares.to_give_way("few") is None  # two and one: a change would only turn them round
    assert shares.to_give_way("other") == 3
    for item in (3, 4):
        shares.remove("many", item)
    assert (shares.count("many"), shares.count("few"), shares.count("other")) == (0, 1, 0)
    assert shares.to_give_way("other") is None


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=200))
def test_nobody_is_turned_away_while_another_has_much_more(moves: list[tuple[str, bool]]) -> None:
    room, shares, held = 12, Shares[int](), dict[int, str]()
    for number, (holder, comes) in enumerate(moves):
        mine = [item for item, other in held.items() if other == holder]
        if not comes:
            if mine:
                assert shares.remove(holder, mine[-1])
                del held[mine[-1]]
            continue
        if len(held) == room:
            richest = max(map(shares.count, held.values()))
            victim = shares.to_give_way(holder)
            assert (victim is None) is (richest <= len(mine) + 1)
            if victim is None:
                continue
            loser = held[victim]
            assert shares.count(loser) == richest
            assert victim == min(item for item, other in held.items() if other == loser)
            assert shares.remove(loser, victim)
            del held[victim]
        shares.add(holder, number)
        held[number] = holder
    for holder in "abcd":
        assert shares.count(holder) == list(held.values()).count(holder)
