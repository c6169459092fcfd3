"""Text of others: what is shown of it can move no cursor, turn no line, and pretend no line."""

from __future__ import annotations

import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from fleetwire.core.visible import UNSAFE, one_line, visible_json, visible_text

BIDI = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
NASTY = st.text(
    st.sampled_from("\x1b\x9b\x07\r\n\t\x00\x7f\u2028\u2029\ufeff\U000e0041\\\"'[]{}:, ")
    | st.sampled_from(sorted(BIDI))
    | st.characters(),
    max_size=20,
)


@given(NASTY)
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    for char in visible_text(text):
        assert char in "\n\t" or unicodedata.category(char) not in {"Cc", "Cs", "Zl", "Zp"}
        assert char not in BIDI


@given(NASTY)
def test_shown_twice_is_shown_once(text: str) -> None:
    assert visible_text(visible_text(text)) == visible_text(text)


@given(NASTY)
def test_one_line_is_one_line(text: str) -> None:
    line = one_line(text)
    assert len(line.splitlines()) <= 1
    assert len(line) <= 200


@given(
    st.recursive(
        NASTY | st.none() | st.integers(), lambda of: st.lists(of) | st.dictionaries(NASTY, of)
    )
)
def test_json_means_the_same_and_holds_nothing_unsafe(value: object) -> None:
    for text in (json.dumps(value, ensure_ascii=False), json.dumps(value, indent=1)):
        shown = visible_json(text)
        assert json.loads(shown) == json.loads(text)
        assert UNSAFE.search(shown) is None


def test_how_it_looks() -> None:
    assert visible_text("a\u202eb\x9b2J\U000e0041") == r"a\u202eb\x9b2J\U000e0041"
    assert visible_json('"\u202e\U000e0041"') == r'"\u202e\udb40\udc41"'
    # Joiners of Persian words and of emoji are no tricks.
    assert (
        visible_text("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645")
        == "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
    )
