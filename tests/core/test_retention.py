"""What may be thrown away, as pure rules."""

from __future__ import annotations

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from fleetwire.core.ids import RANDOM_BYTES, make_id
from fleetwire.core.retention import (
    DAY_US,
    US,
    Keep,
    cutoffs,
    ids_of,
    run_may_go,
    segments_past,
)
from fleetwire.server.logs.base import segment_at

NOW = 1_795_176_000_000_000  # 2026-11-20, noon
moments = st.integers(0, 4_000_000_000 * US)


def test_a_log_never_outlives_its_run() -> None:
    until = cutoffs(Keep(logs_s=100 * 86400, runs_s=10 * 86400, events_s=86400), NOW)
    assert until == (NOW - 10 * DAY_US, NOW - 10 * DAY_US, NOW - DAY_US)
    assert Keep(logs_s=100 * 86400, runs_s=36 * 3600).reason == "kept for 1.5 days, which are over"


def test_a_segment_is_past_when_its_last_moment_is() -> None:
    midnight = round(dt.datetime(2026, 11, 20, tzinfo=dt.UTC).timestamp()) * US
    names = ["2026-11-20", "2026-11-18", "2026-11-19"]
    assert segments_past(names, midnight - 1) == ["2026-11-18"]
    assert segments_past(names, midnight) == ["2026-11-18", "2026-11-19"]


@given(moments, moments)
def test_no_segment_in_use_is_past(made: int, cutoff: int) -> None:
    segment = segment_at(made)
    if made >= cutoff:
        assert segments_past([segment], cutoff) == []
    if made < cutoff - DAY_US:
        assert segments_past([segment], cutoff) == [segment]


@given(moments, st.integers(-DAY_US + US, DAY_US - US), st.binary(min_size=10, max_size=10))
def test_ids_of_a_segment_hold_all_that_is_made_on_its_day(
    made: int, skew: int, random: bytes
) -> None:
    first, last = ids_of(segment_at(made))
    assert first <= make_id(max(made + skew, 0), random) <= last
    far = make_id(made + 4 * DAY_US, bytes(RANDOM_BYTES))
    assert far > last


@given(st.none() | moments, st.integers(0, 3), moments)
def test_only_what_has_ended_and_is_settled_may_go(
    ended_at: int | None, unsettled: int, cutoff: int
) -> None:
    may = run_may_go(ended_at=ended_at, unsettled=unsettled, cutoff=cutoff)
    assert may == (ended_at is not None and ended_at < cutoff and not unsettled)
