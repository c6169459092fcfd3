from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleetwire.core.dispatch import LinkState
from fleetwire.core.removal import objection

LINKS: list[LinkState] = ["online", "unstable", "offline"]


def test_it_says_what_would_be_cut_off() -> None:
    assert objection("web-1", "online", 2, force=False) == (
        "Node web-1 is online and has 2 attempts at work."
    )
    assert objection("web-1", "unstable", 1, force=False) == (
        "Node web-1 is unstable and has 1 attempt at work."
    )
    assert objection("web-1", "online", 0, force=False) == "Node web-1 is online."


@given(st.sampled_from(LINKS), st.integers(0, 9), st.booleans())
def test_only_what_is_gone_goes_without_force(link: LinkState, live: int, force: bool) -> None:
    assert (objection("n", link, live, force=force) is None) == (force or link == "offline")
