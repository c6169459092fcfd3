from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleetwire.cli.lines import LINE_BYTES, Lines, Source

PREFIX = {"a": b"a | ", "b": b"b | "}


class Written:
    def __init__(self) -> None:
        self.all = b""
        self.largest = 0

    def __call__(self, _stream: str, data: bytes) -> None:
        self.all += data
        self.largest = max(self.largest, len(data))


pieces = st.lists(
    st.tuples(st.sampled_from("ab"), st.text("xy\n", max_size=6).map(str.encode)), max_size=20
)


@given(pieces)
def test_each_node_keeps_its_lines_whole_and_in_order(fed: list[tuple[str, bytes]]) -> None:
    out = Written()
    lines = Lines(out)
    whole = {"a": b"", "b": b""}
    for name, data in fed:
        lines.feed(Source(name, "stdout"), PREFIX[name], data)
        whole[name] += data
    for name in "ab":
        lines.finish(Source(name, "stdout"), PREFIX[name])
    shown = out.all.splitlines()
    assert not out.all or out.all.endswith(b"\n")
    for name in "ab":
        mine = [line[4:] for line in shown if line.startswith(PREFIX[name])]
        assert (
            mine
            == whole[name].split(b"\n")[
                : whole[name].count(b"\n") + bool(whole[name] and not whole[name].endswith(b"\n"))
            ]
        )


def test_an_endless_line_does_not_fill_memory() -> None:
    out = Written()
    lines = Lines(out)
    source = Source("a", "stdout")
    for _ in range(1000):
        lines.feed(source, b"a | ", b"x" * 10_000)
        assert sum(map(len, lines._partial.values())) < LINE_BYTES
    lines.finish(source, b"a | ")
    assert out.all == b"a | " + b"x" * 10_000_000 + b"\n"
    assert out.largest < LINE_BYTES + 10_100


def test_a_long_line_is_broken_where_another_comes_between() -> None:
    out = Written()
    lines = Lines(out)
    a, b = Source("a", "stdout"), Source("b", "stdout")
    lines.feed(a, b"a | ", b"x" * LINE_BYTES)
    lines.feed(b, b"b | ", b"hello\n")
    lines.feed(a, b"a | ", b"rest\n")
    assert out.all == b"a | " + b"x" * LINE_BYTES + b"\nb | hello\na | rest\n"


def test_a_block_of_lines_is_one_write() -> None:
    calls: list[bytes] = []
    lines = Lines(lambda _stream, data: calls.append(data))
    lines.feed(Source("a", "stdout"), b"a | ", b"1\n2\n3\n")
    assert calls == [b"a | 1\na | 2\na | 3\n"]
