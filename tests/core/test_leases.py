from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetwire.core.leases import (
    generation_of,
    generation_past,
    lease_holds,
    link_state,
    next_epoch,
)


def test_a_lease_is_counted_from_sending() -> None:
    assert not lease_holds(None, 60, 0)
    assert lease_holds(100, 60, 159.9)
    assert not lease_holds(100, 60, 160)


@pytest.mark.parametrize(
    ("connected", "silent", "state"),
    [
        (True, 0, "online"),
        (True, 14.9, "online"),
        (True, 15, "unstable"),
        (False, 0, "unstable"),
        (True, 89.9, "unstable"),
        (True, 90, "offline"),
        (False, 90, "offline"),
    ],
)
def test_link_states(connected: bool, silent: float, state: str) -> None:
    assert link_state(connected=connected, silent_s=silent, heartbeat_s=10) == state


def test_a_link_that_flaps_is_never_online() -> None:
    for connected, silent in ((True, 0.0), (True, 20.0), (False, 0.0)):
        state = link_state(connected=connected, silent_s=silent, heartbeat_s=10, flapping=True)
        assert state == "unstable"
    assert link_state(connected=True, silent_s=90, heartbeat_s=10, flapping=True) == "offline"


counters = st.integers(0, 2**32 - 1)
generations = st.integers(0, 2**21 - 1)


@given(generations, counters, generations, counters)
def test_epochs_sort_by_generation_then_counter(g: int, c: int, h: int, d: int) -> None:
    assert (next_epoch(g, c) < next_epoch(h, d)) == ((g, c) < (h, d))
    assert generation_of(next_epoch(g, c)) == g


def test_epochs_end() -> None:
    with pytest.raises(AssertionError):
        next_epoch(0, 2**32)
    with pytest.raises(AssertionError):
        next_epoch(2**21, 0)


@given(generations, generations)
def test_a_restored_server_goes_past_what_its_nodes_have_seen(ours: int, seen: int) -> None:
    new = generation_past(ours, seen)
    assert new >= ours
    assert (new > seen) or (new == ours == seen)
    assert (new == ours) == (seen <= ours)
