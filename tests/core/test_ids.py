from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetwire.core.errors import BadId
from fleetwire.core.ids import id_bytes, id_from_bytes, is_id, make_id, parse_id

times = st.integers(min_value=0, max_value=2**58)
randoms = st.binary(min_size=10, max_size=10)


@given(times, randoms)
def test_an_id_is_a_uuid_7_that_survives_its_bytes(now: int, random: bytes) -> None:
    made = make_id(now, random)
    assert uuid.UUID(made).version == 7
    assert uuid.UUID(made).variant == uuid.RFC_4122
    assert is_id(made)
    assert parse_id(made) == made
    assert id_from_bytes(id_bytes(made)) == made


@given(times, times, randoms, randoms)
def test_ids_sort_by_age(one: int, two: int, left: bytes, right: bytes) -> None:
    if one // 1000 < two // 1000:
        assert make_id(one, left) < make_id(two, right)


@given(randoms, randoms)
def test_different_chance_makes_different_ids(one: bytes, two: bytes) -> None:
    # 74 of the 80 bits are kept: 4 of the first two bytes and 2 of the third make room.
    def kept(raw: bytes) -> tuple[int, int, int]:
        return raw[0], raw[1] >> 4, int.from_bytes(raw[2:], "big") & (2**62 - 1)

    assert (make_id(0, one) == make_id(0, two)) == (kept(one) == kept(two))


@pytest.mark.parametrize(
    "text", ["", "x", "../../etc/passwd", "0190B7F0-1C2D-7ABC-8DEF-0123456789AB", "a" * 300]
)
def test_what_is_not_an_id_is_refused(text: str) -> None:
    assert not is_id(text)
    with pytest.raises(BadId) as raised:
        parse_id(text, field="run")
    assert raised.value.field == "run"
    assert len(str(raised.value)) < 200


def test_an_id_takes_ten_random_bytes() -> None:
    with pytest.raises(AssertionError):
        make_id(0, b"short")
