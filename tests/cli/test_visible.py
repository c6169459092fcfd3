from __future__ import annotations

import unicodedata
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fleetwire.cli.visible import Visible, one_line, visible_text

BIDI = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
nasty = st.lists(
    st.sampled_from([b"\x1b[31m", b"\r\n", b"\r", b"\xe2", b"\x80", b"\xae", b"\xc2\x9b", b"\n"])
    | st.binary(max_size=6)
    | st.text(max_size=4).map(lambda text: text.encode("utf-8", "replace")),
    max_size=12,
).map(b"".join)


def shown(blocks: list[bytes]) -> bytes:
    visible = Visible()
    return b"".join([*map(visible.feed, blocks), visible.finish()])


@given(nasty)
def test_nothing_shown_can_move_the_cursor_or_turn_the_reading_order(data: bytes) -> None:
    text = shown([data]).decode("utf-8")  # and it is always UTF-8
    for char in text:
        assert char in "\n\t" or unicodedata.category(char) != "Cc"
        assert char not in BIDI


@given(nasty, st.lists(st.integers(0, 100), max_size=8))
def test_any_split_shows_the_same(data: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    blocks = [data[a:b] for a, b in pairwise(edges)]
    assert shown(blocks) == shown([data])


@given(
    st.text(
        st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"]) | st.sampled_from("\n\t")
    )
)
def test_ordinary_text_is_unchanged(text: str) -> None:
    assert shown([text.encode()]) == text.encode()


def test_how_it_looks() -> None:
    assert shown([b"\x1b]0;owned\x07"]) == rb"\x1b]0;owned\x07"
    assert shown(["a\u202eb".encode()]) == rb"a\u202eb"
    assert shown([b"50%\r100%\r\nok"]) == b"50%\\x0d100%\nok"
    assert shown([b"\xff\xfe"]) == rb"\xff\xfe"
    assert shown(["\u4f60\u597d".encode()]) == "\u4f60\u597d".encode()


def test_nothing_is_held_back_from_a_prompt() -> None:
    assert Visible().feed(b"Password: ") == b"Password: "


def test_cells_are_one_visible_line() -> None:
    assert one_line("a\nb\x1b[2J  c") == r"a b\x1b[2J c"
    assert one_line("x" * 300, 10) == "x" * 9 + "\u2026"
    assert visible_text("a\tb\n") == "a\tb\n"
