from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetwire.client.errors import BadAnswer
from fleetwire.client.sse import EventReader, ServerEvent

ids = st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), min_size=1)
kinds = st.sampled_from(["run", "task", "log", "end"])
datas = st.lists(
    st.binary(min_size=0, max_size=40).map(lambda b: b.replace(b"\n", b"").replace(b"\r", b"")),
    min_size=1,
    max_size=3,
)


def written(events: list[tuple[str, list[bytes], str | None]], newline: bytes) -> bytes:
    out = b": comment" + newline + newline
    for kind, data, cursor in events:
        if cursor is not None:
            out += b"id: " + cursor.encode() + newline
        out += b"event: " + kind.encode() + newline
        for line in data:
            out += b"data: " + line + newline
        out += newline + b": still here" + newline + newline
    return out


def split(body: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({cut % (len(body) + 1) for cut in cuts}), len(body)]
    return [body[a:b] for a, b in pairwise(edges)]


@given(
    st.lists(st.tuples(kinds, datas, ids), max_size=6),
    st.lists(st.integers(0, 10_000)),
    st.sampled_from([b"\n", b"\r\n"]),
)
def test_any_split_gives_the_same_events(
    events: list[tuple[str, list[bytes], str | None]], cuts: list[int], newline: bytes
) -> None:
    reader = EventReader()
    read = []
    for block in split(written(events, newline), cuts):
        read += reader.feed(block)
    expected, last = [], None
    for kind, data, cursor in events:
        last = cursor if cursor is not None else last
        expected.append(ServerEvent(kind, b"\n".join(data), last))
    assert read == expected


def test_an_unfinished_event_is_not_given() -> None:
    reader = EventReader()
    assert reader.feed(b"event: log\ndata: {}\n") == []
    assert reader.feed(b"\n") == [ServerEvent("log", b"{}", None)]


def test_an_event_is_bounded_at_its_limit() -> None:
    assert EventReader(most=100).feed(b"data: " + b"x" * 100 + b"\n\n")
    with pytest.raises(BadAnswer):
        EventReader(most=100).feed(b"data: " + b"x" * 101 + b"\n\n")


def test_an_endless_line_is_refused_before_it_fills_memory() -> None:
    reader = EventReader(most=1000)
    for _ in range(10):
        reader.feed(b"x" * 100)
    with pytest.raises(BadAnswer, match="longer than 1000"):
        reader.feed(b"x")


def test_many_lines_of_data_are_bounded_together() -> None:
    reader = EventReader(most=1000)
    for _ in range(10):
        reader.feed(b"data: " + b"x" * 100 + b"\n")
    with pytest.raises(BadAnswer):
        reader.feed(b"data: x\n")
