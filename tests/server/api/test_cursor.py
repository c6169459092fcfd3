from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetwire.server.api import cursor
from fleetwire.server.api.cursor import Read
from fleetwire.server.api.errors import Unprocessable

READS = st.dictionaries(
    st.integers(0, 10_000),
    st.builds(Read, st.integers(1, 50), st.integers(1, 1 << 50)),
    max_size=60,
)


@given(READS)
def test_a_vector_comes_back(read: dict[int, Read]) -> None:
    assert cursor.parse_vector(cursor.vector(read)) == read


@given(
    st.dictionaries(
        st.integers(0, 10_000), st.builds(Read, st.just(1), st.integers(0, 1 << 40)), max_size=3000
    )
)
def test_a_vector_is_bounded_and_keeps_the_longest(read: dict[int, Read]) -> None:
    text = cursor.vector(read)
    assert len(text) <= cursor.CURSOR_BYTES * 4 / 3 + 8
    kept = cursor.parse_vector(text)
    assert kept.items() <= read.items()
    left_out = [one.offset for index, one in read.items() if index not in kept]
    if kept and left_out:
        assert max(left_out) <= min(one.offset for one in kept.values())


@given(st.text(max_size=200))
def test_any_text_is_taken_as_a_vector(text: str) -> None:
    assert isinstance(cursor.parse_vector(text), dict)


@given(st.text(min_size=1, max_size=100).filter(str.isprintable))
def test_a_list_cursor_comes_back(last: str) -> None:
    text = cursor.after(last)
    assert text.isascii()
    assert cursor.parse_after(text) == last


@pytest.mark.parametrize("text", ["", "x", "AA", "é", "AQ", cursor.after("a\0b"), "AQH_"])
def test_what_is_no_list_cursor(text: str) -> None:
    with pytest.raises(Unprocessable):
        cursor.parse_after(text)
