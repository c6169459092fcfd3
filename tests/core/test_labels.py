"""The selector language: grammar, positions of mistakes, and agreement with a naive oracle."""

from __future__ import annotations

import fnmatch
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetwire.core import limits
from fleetwire.core.errors import BadLabel, BadSelector
from fleetwire.core.labels import check_labels, glob_matches, parse_selector

LINUX = {"os": "linux", "role": "web", "name": "web-1", "tier.example/x": "a b"}


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ("os", True),
        ("!os", False),
        ("!retired", True),
        ("os=linux", True),
        ("os==linux", True),
        ("os=windows", False),
        ("os!=windows", True),
        ("absent!=x", True),
        ("os != linux", False),
        ("role in (web, db)", True),
        ("role notin (web, db)", False),
        ("absent notin (web)", True),
        ("absent in (web)", False),
        ("name=web-*", True),
        ("name=web-?", True),
        ("name=web-??", False),
        ('name="web-*"', False),
        ('tier.example/x="a b"', True),
        (r'os="li\"n"', False),
        ("os=linux,role=db", False),
        ("os=linux && role=web", True),
        ("os=windows || role=web", True),
        ("os=windows, x=y || role=web", True),
        ("os=windows, (x=y || role=web)", False),
        ("(os=windows || role=web), name=web-1", True),
        ("((((os))))", True),
        ("in in (x)", False),
    ],
)
def test_a_selector_means(selector: str, matches: bool) -> None:
    assert parse_selector(selector)(LINUX) is matches


@pytest.mark.parametrize(
    ("selector", "position", "said"),
    [
        ("", 0, "found the end"),
        ("os=", 3, "Expected a value"),
        ("os=linux &&", 11, "Expected a label key"),
        ("os=linux role=web", 9, "Expected an operator"),
        ("(os=linux", 9, "Expected ')'"),
        ("os in linux", 6, "Expected '('"),
        ("os in ()", 7, "Expected a value"),
        ("os in (a b)", 9, "',' or ')'"),
        ("os=$x", 3, "Unexpected '$'"),
        ('os="x', 3, "Unexpected '\"'"),
        ("a=b | c", 4, "Unexpected '|'"),
        ("*=b", 0, "not a label key"),
        ("!" + "k" * 64, 1, "not a label key"),
    ],
)
def test_a_mistake_is_shown_where_it_is(selector: str, position: int, said: str) -> None:
    with pytest.raises(BadSelector) as raised:
        parse_selector(selector)
    assert raised.value.position == position
    assert said in str(raised.value)
    assert f"position {position + 1}" in str(raised.value)


@pytest.mark.limit("selector_bytes")
def test_a_selector_has_at_most_4096_bytes() -> None:
    longest = "os=" + "x" * (limits.SELECTOR_BYTES - 3)
    assert not parse_selector(longest)(LINUX)
    with pytest.raises(BadSelector, match="longer than 4096 bytes"):
        parse_selector(longest + "x")


@pytest.mark.limit("selector_depth")
def test_parentheses_nest_at_most_32_deep() -> None:
    depth = limits.SELECTOR_DEPTH
    assert parse_selector("(" * depth + "os" + ")" * depth)(LINUX)
    with pytest.raises(BadSelector, match="More than 32"):
        parse_selector("(" * (depth + 1) + "os" + ")" * (depth + 1))


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_with_a_position(text: str) -> None:
    try:
        selector = parse_selector(text)
    except BadSelector as error:
        position = error.position
    else:
        position = int(selector(LINUX))
    assert 0 <= position <= max(len(text), 1)


@given(st.text(alphabet="ab*?", max_size=12), st.text(alphabet="ab", max_size=12))
def test_globs_agree_with_fnmatch(pattern: str, text: str) -> None:
    assert glob_matches(pattern, text) == fnmatch.fnmatchcase(text, pattern)


def test_a_hostile_glob_is_not_slow() -> None:
    assert not glob_matches("*a" * 120 + "b", "a" * 255)


words = st.sampled_from(["a", "b", "c"])


@st.composite
def selectors(draw: st.DrawFn, depth: int = 0) -> tuple[str, tuple[Any, ...]]:
    """A selector's text with the same meaning as a nested tuple."""
    kinds = ["eq", "ne", "has", "not", "in", "notin"] + ["or", "and", "paren"] * (depth < 3)
    kind = draw(st.sampled_from(kinds))
    if kind in {"or", "and"}:
        left, left_tree = draw(selectors(depth=depth + 1))
        right, right_tree = draw(selectors(depth=depth + 1))
        sign = "||" if kind == "or" else draw(st.sampled_from([",", "&&"]))
        return f"({left}) {sign} ({right})", (kind, left_tree, right_tree)
    if kind == "paren":
        inner, tree = draw(selectors(depth=depth + 1))
        return f"({inner})", tree
    key, value = draw(words), draw(words)
    text = {
        "eq": f"{key}={value}",
        "ne": f"{key}!={value}",
        "has": key,
        "not": f"!{key}",
        "in": f"{key} in ({value},z)",
        "notin": f"{key} notin ({value},z)",
    }[kind]
    return text, (kind, key, value)


def oracle(tree: tuple[Any, ...], labels: dict[str, str]) -> bool:
    kind, one, two = tree
    if kind == "or":
        return oracle(one, labels) or oracle(two, labels)
    if kind == "and":
        return oracle(one, labels) and oracle(two, labels)
    return bool(
        {
            "eq": labels.get(one) == two,
            "ne": labels.get(one) != two,
            "has": one in labels,
            "not": one not in labels,
            "in": labels.get(one) == two,
            "notin": labels.get(one) != two,
        }[kind]
    )


@given(selectors(), st.dictionaries(words, words))
def test_selectors_agree_with_a_naive_oracle(
    selector: tuple[str, tuple[Any, ...]], labels: dict[str, str]
) -> None:
    text, tree = selector
    assert parse_selector(text)(labels) == oracle(tree, labels)


def test_labels_are_checked() -> None:
    check_labels(LINUX)
    with pytest.raises(BadLabel, match="not a label key"):
        check_labels({"a b": "c"})
    with pytest.raises(BadLabel, match="unprintable"):
        check_labels({"a": "\x1b[31m"})


@pytest.mark.limit("label_key_chars")
def test_a_label_key_has_at_most_63_characters() -> None:
    check_labels({"k" * 63: "v"})
    with pytest.raises(BadLabel):
        check_labels({"k" * 64: "v"})


@pytest.mark.limit("label_value_chars")
def test_a_label_value_has_at_most_255_characters() -> None:
    check_labels({"k": "v" * 255})
    with pytest.raises(BadLabel):
        check_labels({"k": "v" * 256})


@pytest.mark.limit("labels_per_node")
def test_a_node_has_at_most_64_labels() -> None:
    check_labels({f"k{n}": "v" for n in range(64)})
    with pytest.raises(BadLabel, match="too many"):
        check_labels({f"k{n}": "v" for n in range(65)})
