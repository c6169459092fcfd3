from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleetwire.agent import chunks
from fleetwire.core import limits
from fleetwire.core.chunks import BODY_MAX, GAP, decode
from fleetwire.shim.spool import Frame

PARTS = st.lists(
    st.tuples(st.sampled_from([0, 1, 2]), st.integers(1, 5000), st.integers(0, 3000)), max_size=60
)


def frames_of(parts: list[tuple[int, int, int]], start: int) -> list[Frame]:
    frames, offset, time_us = [], start, 10
    for number, (stream, size, later) in enumerate(parts):
        time_us += later
        payload = b"" if stream == GAP else bytes([number % 256]) * size
        frames.append(Frame(stream, time_us, offset, payload, size if stream == GAP else 0))
        offset += size
    return frames


@given(PARTS, st.integers(0, 2**40))
def test_every_byte_once_and_in_order(parts: list[tuple[int, int, int]], start: int) -> None:
    frames = frames_of(parts, start)
    position, sent = start, b""
    streams: dict[int, int] = {}
    for chunk in chunks.pack(frames):
        assert chunk.offset == position
        pieces, payload = decode(chunk.body)
        position += sum(piece.length for piece in pieces)
        assert chunk.end == position
        sent += bytes(payload)
        for piece in pieces:
            streams[piece.stream] = streams.get(piece.stream, 0) + piece.length
    assert sent == b"".join(bytes(frame.payload) for frame in frames)
    assert position == start + sum(size for _, size, _ in parts)
    for stream in (0, 1, 2):
        assert streams.get(stream, 0) == sum(size for kind, size, _ in parts if kind == stream)


def test_a_chunk_is_never_too_large() -> None:
    many = frames_of([(1 + number % 2, 1, 0) for number in range(10_000)], 0)
    big = frames_of([(1, 256 * limits.KIB, 5000)] * 9, 0)
    for frames in (many, big):
        for chunk in chunks.pack(frames):
            pieces, payload = decode(chunk.body)
            assert len(pieces) <= limits.CHUNK_PIECES
            assert len(payload) <= chunks.PAYLOAD_BYTES
            assert len(chunk.body) <= BODY_MAX


def test_what_was_read_together_is_one_piece() -> None:
    (chunk,) = chunks.pack(frames_of([(1, 10, 0)] * 100, 0))
    assert len(decode(chunk.body)[0]) == 1
    (chunk,) = chunks.pack(frames_of([(1, 10, 1000)] * 100, 0))
    assert len(decode(chunk.body)[0]) == 100


def test_nothing() -> None:
    assert list(chunks.pack([])) == []
