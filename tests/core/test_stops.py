from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetwire.core.envelopes import KEY_DOMAIN, ORDER_DOMAIN
from fleetwire.core.leases import EPOCH_MAX
from fleetwire.core.stops import (
    STOP_DOMAIN,
    WORD_DOMAIN,
    StopEnvelope,
    StopsWord,
    in_ms,
    stop_bytes,
    stop_objection,
    word_bytes,
)

ENVELOPE = StopEnvelope("c", "n", "r", "a", 7, 1500, 9)
HERE: dict[str, Any] = {
    "cluster": "c", "node": "n", "attempt": "a", "epoch": 7, "grace": 1.5, "begun": 7,
}  # fmt: skip
envelopes = st.builds(
    StopEnvelope,
    *(st.text(max_size=4) for _ in range(4)),
    st.integers(0, EPOCH_MAX),
    st.none() | st.integers(0, 10**7),
    st.integers(0, 2**53),
)


def test_canonical_bytes_are_frozen() -> None:
    assert stop_bytes(ENVELOPE) == (
        b"fleetwire stop 1\n"
        b'{"attempt":"a","cluster":"c","epoch":7,"grace_ms":1500,"issued_at":9,"node":"n","run":"r"}'
    )
    assert word_bytes(StopsWord("c", 9)) == (
        b'fleetwire stops are signed 1\n{"cluster":"c","issued_at":9}'
    )


def test_no_kind_of_signed_thing_passes_for_another() -> None:
    domains = [ORDER_DOMAIN, KEY_DOMAIN, STOP_DOMAIN, WORD_DOMAIN]
    for one in domains:
        assert not [other for other in domains if other is not one and other.startswith(one)]


@given(envelopes, envelopes)
def test_other_envelopes_have_other_bytes(one: StopEnvelope, other: StopEnvelope) -> None:
    assert (one == other) is (stop_bytes(one) == stop_bytes(other))


def test_what_is_signed_for_this_covers_it() -> None:
    assert stop_objection(ENVELOPE, **HERE) is None
    assert stop_objection(ENVELOPE, **{**HERE, "begun": None}) is None
    own = msgspec.structs.replace(ENVELOPE, grace_ms=None)
    assert stop_objection(own, **{**HERE, "grace": None}) is None


@pytest.mark.parametrize(
    ("what", "value"),
    [
        *(("cluster", "c2"), ("node", "n2"), ("attempt", "a2"), ("epoch", 8), ("epoch", 6)),
        *(("grace", 1.6), ("grace", 0.0), ("grace", None)),
    ],
)
def test_what_is_signed_for_another_does_not(what: str, value: object) -> None:
    assert (
        stop_objection(ENVELOPE, **{**HERE, what: value})
        == f"the stop is signed for another {what}"
    )


@given(envelopes, st.integers(0, EPOCH_MAX))
def test_it_covers_what_began_under_its_epoch_or_an_older_one(
    envelope: StopEnvelope, begun: int
) -> None:
    grace = None if envelope.grace_ms is None else envelope.grace_ms / 1000
    found = stop_objection(
        envelope,
        cluster=envelope.cluster,
        node=envelope.node,
        attempt=envelope.attempt,
        epoch=envelope.epoch,
        grace=grace,
        begun=begun,
    )
    assert (found is None) is (begun <= envelope.epoch)


@given(st.floats(0, 86400))
def test_a_grace_is_the_same_however_often_it_is_written(grace: float) -> None:
    there = msgspec.json.decode(msgspec.json.encode(grace), type=float)
    assert in_ms(there) == in_ms(grace)
