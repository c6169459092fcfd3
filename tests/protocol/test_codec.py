from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetwire.core import limits
from fleetwire.core.ids import make_id
from fleetwire.protocol import codec, messages
from fleetwire.protocol.codec import BadFrame, Piece

ATTEMPT = make_id(1, b"0123456789")
chunks = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([1, 2]), st.binary(min_size=1, max_size=300)),
        st.tuples(st.just(0), st.integers(1, 2**32 - 1)),
    ),
    min_size=1,
    max_size=20,
)


@given(chunks, st.integers(0, 2**40))
def test_a_chunk_survives_the_wire(parts: list[tuple[int, bytes | int]], offset: int) -> None:
    pieces = [
        Piece(stream, what if isinstance(what, int) else len(what), 7) for stream, what in parts
    ]
    payloads = [what for _, what in parts if isinstance(what, bytes)]
    body = codec.encode_body(pieces, payloads)
    frame = codec.decode_log(codec.encode_log(ATTEMPT, offset, len(body), body, zstd=False))
    assert (frame.attempt, frame.offset, frame.zstd) == (ATTEMPT, offset, False)
    assert frame.raw_length == len(body)
    back, payload = codec.decode_body(bytes(frame.body))
    assert back == pieces
    assert bytes(payload) == b"".join(payloads)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_frame_or_refused(raw: bytes) -> None:
    with contextlib.suppress(BadFrame):
        frame = codec.decode_log(raw)
        pieces, payload = codec.decode_body(bytes(frame.body))
        assert sum(piece.length for piece in pieces if piece.stream) == len(payload)


@given(st.text(max_size=200))
def test_any_text_is_a_message_or_refused(text: str) -> None:
    for decode in (codec.decode_from_agent, codec.decode_from_server):
        with pytest.raises(BadFrame):
            decode(text)


HEADER = codec.HEADER
RAW = bytes(16)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        HEADER.pack(1, 0, 0, 0, 0, RAW)[:-1],
        HEADER.pack(2, 0, 0, 0, 0, RAW),
        HEADER.pack(1, 2, 0, 0, 0, RAW),
        HEADER.pack(1, 0, 1, 0, 0, RAW),
        HEADER.pack(1, 0, 0, codec.BODY_MAX + 1, 0, RAW),
        HEADER.pack(1, 0, 0, 0, 2**62 + 1, RAW),
        HEADER.pack(1, 0, 0, 0, 0, RAW) + bytes(codec.BODY_MAX + 1),
    ],
)
def test_a_wrong_header_is_refused(frame: bytes) -> None:
    with pytest.raises(BadFrame):
        codec.decode_log(frame)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0\0\0\0",
        codec.TABLE_COUNT.pack(1),
        codec.TABLE_COUNT.pack(2**32 - 1) + bytes(64),
        codec.encode_body([Piece(1, 2, 0)], [b"x"]),
        codec.encode_body([Piece(1, 1, 0)], [b"xy"]),
        codec.encode_body([Piece(3, 1, 0)], [b"x"]),
        codec.encode_body([Piece(1, 0, 0)], []),
    ],
)
def test_a_wrong_body_is_refused(body: bytes) -> None:
    with pytest.raises(BadFrame):
        codec.decode_body(body)


@pytest.mark.limit("chunk_pieces")
def test_a_chunk_has_at_most_4096_pieces() -> None:
    most = [Piece(1, 1, 0)] * limits.CHUNK_PIECES
    codec.decode_body(codec.encode_body(most, [b"x" * len(most)]))
    above = [*most, Piece(1, 1, 0)]
    with pytest.raises(BadFrame, match="4097 pieces"):
        codec.decode_body(codec.encode_body(above, [b"x" * len(above)]))


@pytest.mark.limit("chunk_payload_bytes")
def test_a_chunk_has_at_most_one_mebibyte_and_its_table() -> None:
    size = codec.BODY_MAX
    codec.decode_log(codec.encode_log(ATTEMPT, 0, size, bytes(size), zstd=True))
    with pytest.raises(BadFrame, match="too large"):
        codec.decode_log(codec.encode_log(ATTEMPT, 0, size, bytes(size + 1), zstd=True))


@pytest.mark.limit("control_frame_bytes")
def test_a_control_frame_has_at_most_one_mebibyte() -> None:
    frame = codec.encode(messages.Heartbeat(1, 2))
    padded = frame[:-1] + " " * (limits.CONTROL_FRAME_BYTES - len(frame)) + "}"
    assert codec.decode_from_agent(padded) == messages.Heartbeat(1, 2)
    with pytest.raises(BadFrame, match="larger than"):
        codec.decode_from_agent(padded + " ")


def test_unknown_fields_are_tolerated() -> None:
    text = '{"t":"heartbeat","sequence":1,"clock":2,"from_the_future":[1]}'
    assert codec.decode_from_agent(text) == messages.Heartbeat(1, 2)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '{"t":"beat","sequence":1,"clock":2}',
        '{"t":"heartbeat","sequence":-1,"clock":2}',
        '{"t":"heartbeat","sequence":true,"clock":2}',
        '{"t":"heartbeat","sequence":1e400,"clock":2}',
        '{"t":"heartbeat","sequence":' + "9" * 5000 + ',"clock":2}',
        '{"t":"observed","revision":0,"attempts":[{"attempt":5}]}',
        '{"t":"inventory","facts":' + "[" * 5000 + "]" * 5000 + "}",
        '{"t":"inventory","facts":' + '{"a":' * 5000 + "1" + "}" * 5000 + "}",
    ],
)
def test_a_wrong_message_is_refused(text: str) -> None:
    with pytest.raises(BadFrame, match="agent's frame"):
        codec.decode_from_agent(text)


@pytest.mark.limit("reason_chars")
def test_a_nodes_reason_has_at_most_1024_characters() -> None:
    for size, good in ((limits.REASON_CHARS, True), (limits.REASON_CHARS + 1, False)):
        lost = '{"h":"lost","at":1,"reason":"' + "x" * size + '"}'
        frame = '{"t":"observed","revision":0,"attempts":[{"attempt":"a","epoch":1,"happenings":['
        frame += lost + "]}]}"
        with contextlib.nullcontext() if good else pytest.raises(BadFrame, match="1024"):
            codec.decode_from_agent(frame)


def test_a_message_that_was_not_split_is_a_fault_of_ours() -> None:
    with pytest.raises(AssertionError, match="must be split"):
        codec.encode(messages.Inventory({"a": "x" * limits.CONTROL_FRAME_BYTES}))
