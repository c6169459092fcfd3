from __future__ import annotations

import struct
import tracemalloc

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from fleetwire.core import limits
from fleetwire.core.chunks import GAP, TIME_MAX, BadChunk, Piece
from fleetwire.server.logs import chunks

times = st.integers(0, TIME_MAX)
bodies = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([1, 2]), st.binary(min_size=1, max_size=40), times),
        st.tuples(st.just(GAP), st.integers(1, 60), times),
    ),
    min_size=1,
    max_size=12,
).map(
    lambda parts: chunks.Body(
        [Piece(s, what if isinstance(what, int) else len(what), t) for s, what, t in parts],
        b"".join(what for _, what, _ in parts if isinstance(what, bytes)),
    )
)


def cells(body: chunks.Body) -> list[tuple[int, int | None]]:
    """One (stream, byte) for every log byte: the naive picture of a chunk."""
    found: list[tuple[int, int | None]] = []
    at = 0
    for piece in body.pieces:
        if piece.stream == GAP:
            found += [(GAP, None)] * piece.length
        else:
            found += [(piece.stream, byte) for byte in body.data[at : at + piece.length]]
            at += piece.length
    return found


def wire(count: int, table: bytes, payload: bytes) -> bytes:
    return zstandard.compress(struct.pack("<I", count) + table + payload)


@pytest.mark.slow
@given(bodies)
def test_what_is_encoded_is_decoded(body: chunks.Body) -> None:
    assert chunks.decode(chunks.encode(body.pieces, body.data)) == body


@pytest.mark.slow
@given(bodies, st.data())
def test_a_cut_keeps_exactly_its_cells(body: chunks.Body, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, body.length))
    stop = data.draw(st.integers(start, body.length))
    part = chunks.cut(body, start, stop)
    assert cells(part) == cells(body)[start:stop]
    assert part.length == stop - start
    assert len(part.data) == sum(p.length for p in part.pieces if p.stream != GAP)


@pytest.mark.slow
@given(bodies, st.data())
def test_a_torn_body_is_refused(body: chunks.Body, data: st.DataObject) -> None:
    whole = chunks.encode(body.pieces, body.data)
    with pytest.raises(BadChunk):
        chunks.decode(whole[: data.draw(st.integers(0, len(whole) - 1))])


@pytest.mark.slow
@given(bodies, st.binary(min_size=1, max_size=20))
def test_trailing_bytes_are_refused(body: chunks.Body, more: bytes) -> None:
    with pytest.raises(BadChunk):
        chunks.decode(chunks.encode(body.pieces, body.data) + more)
    with pytest.raises(BadChunk):
        chunks.decode(chunks.encode(body.pieces, body.data + more))


@given(st.binary(max_size=200))
def test_anything_else_is_refused(noise: bytes) -> None:
    with pytest.raises(BadChunk):
        chunks.decode(noise)
    try:
        body = chunks.decode(zstandard.compress(noise))
    except BadChunk:
        return
    assert len(body.data) == sum(p.length for p in body.pieces if p.stream != GAP)


PIECE = struct.Struct("<BIQ")


@pytest.mark.parametrize(
    ("count", "table", "payload"),
    [
        (0, b"", b""),
        (1, PIECE.pack(1, 0, 0), b""),
        (1, PIECE.pack(3, 1, 0), b"x"),
        (1, PIECE.pack(1, 2, 0), b"x"),
        (1, PIECE.pack(1, 1, 0), b"xy"),
        (1, PIECE.pack(GAP, 1, 0), b"x"),
        (1, PIECE.pack(1, 1, 2**64 - 1), b"x"),
        (2, PIECE.pack(1, 1, 0), b"x"),
        (2**32 - 1, PIECE.pack(1, 1, 0), b"x"),
        (2, PIECE.pack(1, 2**32 - 1, 0) + PIECE.pack(1, 2, 0), b"x"),
    ],
)
def test_sums_that_are_wrong_are_refused(count: int, table: bytes, payload: bytes) -> None:
    with pytest.raises(BadChunk):
        chunks.decode(wire(count, table, payload))


def test_the_largest_chunk_passes_and_one_byte_more_does_not() -> None:
    data = bytes(limits.CHUNK_PAYLOAD_BYTES)
    assert (
        chunks.decode(chunks.encode([Piece(1, limits.CHUNK_PAYLOAD_BYTES, 0)], data)).data == data
    )
    with pytest.raises(BadChunk):
        chunks.decode(chunks.encode([Piece(1, limits.CHUNK_PAYLOAD_BYTES + 1, 0)], data + b"x"))


def test_the_most_pieces_pass_and_one_more_does_not() -> None:
    pieces = [Piece(1 + i % 2, 1, i) for i in range(limits.CHUNK_PIECES)]
    assert chunks.decode(chunks.encode(pieces, bytes(limits.CHUNK_PIECES))).pieces == pieces
    with pytest.raises(BadChunk):
        chunks.decode(chunks.encode([*pieces, Piece(1, 1, 0)], bytes(limits.CHUNK_PIECES + 1)))


@pytest.mark.parametrize("is_size_written", [True, False])
def test_a_bomb_takes_no_memory(is_size_written: bool) -> None:
    compressor = zstandard.ZstdCompressor(write_content_size=is_size_written)
    bomb = compressor.compress(bytes(256 * 1024 * 1024))
    assert len(bomb) < 32 * 1024
    tracemalloc.start()
    try:
        with pytest.raises(BadChunk):
            chunks.decode(bomb)
        assert tracemalloc.get_traced_memory()[1] < 4 * 1024 * 1024
    finally:
        tracemalloc.stop()
