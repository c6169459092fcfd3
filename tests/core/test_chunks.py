from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetwire.core import chunks, limits
from fleetwire.core.chunks import BadChunk, Piece

COUNT = struct.Struct("<I")
parts_of_a_chunk = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([1, 2]), st.binary(min_size=1, max_size=300)),
        st.tuples(st.just(0), st.integers(1, 2**32 - 1)),
    ),
    min_size=1,
    max_size=20,
)


@given(parts_of_a_chunk, st.integers(0, chunks.TIME_MAX))
def test_a_chunk_survives_its_bytes(parts: list[tuple[int, bytes | int]], time_us: int) -> None:
    pieces = [
        Piece(stream, what if isinstance(what, int) else len(what), time_us)
        for stream, what in parts
    ]
    payloads = [what for _, what in parts if isinstance(what, bytes)]
    back, payload = chunks.decode(chunks.encode(pieces, payloads))
    assert back == pieces
    assert bytes(payload) == b"".join(payloads)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_chunk_or_refused(raw: bytes) -> None:
    try:
        pieces, payload = chunks.decode(raw)
    except BadChunk:
        return
    assert chunks.encode(pieces, [payload]) == raw


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0\0\0",
        b"\0\0\0\0",
        COUNT.pack(1),
        COUNT.pack(2**32 - 1) + bytes(64),
        chunks.encode([Piece(1, 2, 0)], [b"x"]),
        chunks.encode([Piece(1, 1, 0)], [b"xy"]),
        chunks.encode([Piece(3, 1, 0)], [b"x"]),
        chunks.encode([Piece(1, 0, 0)], []),
        chunks.encode([Piece(1, 1, chunks.TIME_MAX + 1)], [b"x"]),
        bytes(chunks.BODY_MAX + 1),
    ],
)
def test_a_wrong_body_is_refused(body: bytes) -> None:
    with pytest.raises(BadChunk):
        chunks.decode(body)


@pytest.mark.limit("chunk_pieces")
def test_a_chunk_has_at_most_4096_pieces() -> None:
    most = [Piece(1, 1, 0)] * limits.CHUNK_PIECES
    chunks.decode(chunks.encode(most, [b"x" * len(most)]))
    above = [*most, Piece(1, 1, 0)]
    with pytest.raises(BadChunk, match="4097 pieces"):
        chunks.decode(chunks.encode(above, [b"x" * len(above)]))


@pytest.mark.limit("chunk_payload_bytes")
def test_a_chunk_has_at_most_one_mebibyte() -> None:
    most = limits.CHUNK_PAYLOAD_BYTES
    chunks.decode(chunks.encode([Piece(1, most, 0)], [bytes(most)]))
    with pytest.raises(BadChunk, match="at most"):
        chunks.decode(chunks.encode([Piece(1, most + 1, 0)], [bytes(most + 1)]))
