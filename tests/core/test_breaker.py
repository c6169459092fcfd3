from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleetwire.core import limits
from fleetwire.core.breaker import Breaker, Counted, departed, explain, judge, recovers, trips
from fleetwire.core.dispatch import AdminState, LinkState


def fleet(online: int, offline: int, admin: AdminState = "active") -> list[Counted]:
    return [
        *(Counted(f"up-{n}", "online", admin) for n in range(online)),
        *(Counted(f"gone-{n}", "offline", admin) for n in range(offline)),
    ]


def gone(many: int) -> frozenset[str]:
    return frozenset(f"gone-{n}" for n in range(many))


def test_more_than_half_and_at_least_ten() -> None:
    assert not trips(9, 9)
    assert trips(10, 10)
    assert trips(10, 19)
    assert not trips(10, 20)  # exactly half
    assert trips(11, 20)
    assert not trips(0, 0)


def test_who_was_offline_before_does_not_count() -> None:
    # 90 machines were retired long ago; 11 of the 20 others go.
    nodes = [*fleet(9, 11), *(Counted(f"old-{n}", "offline", "active") for n in range(90))]
    assert judge(None, gone(11), nodes) == ("trip", 11, 20)
    assert judge(None, gone(10), fleet(10, 10)) == (None, 10, 20)
    assert judge(None, gone(9), fleet(0, 9)) == (None, 9, 9)


def test_who_was_locked_out_is_not_missed() -> None:
    assert judge(None, gone(12), fleet(0, 12, "disabled")) == (None, 0, 0)
    assert judge(None, gone(12), fleet(3, 12, "draining")) == ("trip", 12, 15)


def test_the_window_is_sixty_seconds_and_no_more() -> None:
    recent = departed({}, ["a"], [], 100.0)
    assert departed(recent, ["b"], [], 160.0) == {"a": 100.0, "b": 160.0}
    assert departed(recent, ["b"], [], 160.001) == {"b": 160.001}
    assert departed(recent, [], ["a"], 101.0) == {}
    assert departed(recent, ["a"], [], 130.0) == {"a": 130.0}  # it was back, and goes again


def test_it_closes_when_three_quarters_are_back_and_not_before() -> None:
    standing = Breaker(0, 11, 20)
    assert not recovers(standing, online=14, enrolled=20)
    assert recovers(standing, online=15, enrolled=20)
    # Eleven were deleted: nobody waits for them.
    assert recovers(standing, online=7, enrolled=9)
    assert not recovers(standing, online=6, enrolled=9)


def test_it_says_what_it_means() -> None:
    assert "11 of 20 nodes" in explain(Breaker(0, 11, 20))


links: st.SearchStrategy[LinkState] = st.sampled_from(["online", "unstable", "offline"])
admins: st.SearchStrategy[AdminState] = st.sampled_from(
    ["active", "draining", "drained", "disabled", "quarantined"]
)
fleets = st.lists(st.tuples(links, admins), max_size=60).map(
    lambda rows: [Counted(str(n), link, admin) for n, (link, admin) in enumerate(rows)]
)


@given(fleets, st.sets(st.integers(0, 59).map(str)))
def test_it_opens_exactly_when_most_of_who_was_there_has_gone(
    nodes: list[Counted], recent: set[str]
) -> None:
    verdict, lost, of = judge(None, recent, nodes)
    watched = [one for one in nodes if one.admin in {"active", "draining", "drained"}]
    missing = [one for one in watched if one.link == "offline" and one.id in recent]
    there = [one for one in watched if one.link != "offline"]
    assert (lost, of) == (len(missing), len(missing) + len(there))
    mass = len(missing) > len(there) and len(missing) >= limits.MASS_OFFLINE_LEAST
    assert (verdict == "trip") is mass


@given(st.lists(links, min_size=1, max_size=60))
def test_an_open_breaker_that_closes_does_not_open_again_at_once(states: list[LinkState]) -> None:
    nodes = [Counted(str(n), link, "active") for n, link in enumerate(states)]
    away = {one.id for one in nodes if one.link == "offline"}
    standing = Breaker(0, len(nodes), len(nodes))
    verdict, _, _ = judge(standing, away, nodes)
    if verdict == "recover":
        assert judge(None, away, nodes)[0] is None


@given(
    st.lists(st.tuples(st.floats(0, 30), st.sets(st.sampled_from("abcdef"))), max_size=20),
    st.floats(0, 30),
)
def test_only_who_went_within_the_window_is_remembered(
    steps: list[tuple[float, set[str]]], last: float
) -> None:
    now, recent, told = 0.0, dict[str, float](), dict[str, list[float]]()
    for wait, went in steps:
        now += wait
        recent = departed(recent, went, [], now)
        for node in went:
            told.setdefault(node, []).append(now)
    now += last
    recent = departed(recent, [], [], now)
    window = limits.MASS_OFFLINE_WITHIN_S
    assert all(now - at <= window and at in told[node] for node, at in recent.items())
    assert all(node in recent for node, times in told.items() if now - times[-1] <= window)
