from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetwire.core import chunks, limits
from fleetwire.core.envelopes import NewKey, SignedKey
from fleetwire.core.ids import make_id
from fleetwire.protocol import codec, messages
from fleetwire.protocol.codec import BadFrame

HEADER = codec.HEADER
ATTEMPT = make_id(1, b"0123456789")


@given(st.binary(max_size=500), st.integers(0, 2**62), st.booleans())
def test_a_log_frame_survives_the_wire(body: bytes, offset: int, zstd: bool) -> None:
    frame = codec.decode_log(codec.encode_log(ATTEMPT, offset, 7, body, zstd=zstd))
    assert (frame.attempt, frame.offset, frame.raw_length) == (ATTEMPT, offset, 7)
    assert (bytes(frame.body), frame.zstd) == (body, zstd)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_frame_or_refused(raw: bytes) -> None:
    with contextlib.suppress(BadFrame):
        assert codec.decode_log(raw).body == raw[HEADER.size :]


@given(st.text(max_size=200))
def test_any_text_is_a_message_or_refused(text: str) -> None:
    for decode in (codec.decode_from_agent, codec.decode_from_server):
        with pytest.raises(BadFrame):
            decode(text)


RAW = bytes(16)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        HEADER.pack(1, 0, 0, 0, 0, RAW)[:-1],
        HEADER.pack(2, 0, 0, 0, 0, RAW),
        HEADER.pack(1, 2, 0, 0, 0, RAW),
        HEADER.pack(1, 0, 1, 0, 0, RAW),
        HEADER.pack(1, 0, 0, chunks.BODY_MAX + 1, 0, RAW),
        HEADER.pack(1, 0, 0, 0, 2**62 + 1, RAW),
        HEADER.pack(1, 0, 0, 0, 0, RAW) + bytes(chunks.BODY_MAX + 1),
    ],
)
def test_a_wrong_header_is_refused(frame: bytes) -> None:
    with pytest.raises(BadFrame):
        codec.decode_log(frame)


def test_a_chunk_has_at_most_one_mebibyte_and_its_table() -> None:
    size = chunks.BODY_MAX
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
        frame = '{"t":"observed","revision":0,"attempts":[{"attempt":"'
        frame += ATTEMPT + '","epoch":1,"happenings":[' + lost + "]}]}"
        with contextlib.nullcontext() if good else pytest.raises(BadFrame, match="1024"):
            codec.decode_from_agent(frame)


EXIT = (
    '{"h":"exited","at":1,"cause":"exited","exit_code":0,"signal":null,"started_at":1,'
    '"duration":1.0,"length":0,"sha256":""}'
)


def observed(observation: str = "", *, attempt: str = ATTEMPT, epoch: int = 1) -> str:
    return (
        f'{{"t":"observed","revision":0,"attempts":[{{"attempt":"{attempt}","epoch":{epoch},'
        f'"happenings":[{observation}]}}]}}'
    )


@pytest.mark.parametrize(
    "text",
    [
        observed(EXIT, epoch=2**63),
        observed(EXIT, epoch=-1),
        observed(EXIT, attempt="x"),
        observed(EXIT, attempt="x" * 37),
        *(
            observed(EXIT.replace(was, now))
            for was, now in (
                ('"at":1,', f'"at":{2**63},'),
                ('"at":1,', '"at":-1,'),
                ('"exit_code":0', f'"exit_code":{2**32}'),
                ('"signal":null', '"signal":0'),
                ('"duration":1.0', '"duration":-1.0'),
                ('"duration":1.0', '"duration":1e300'),
                ('"length":0', '"length":-1'),
                ('"length":0', f'"length":{2**63}'),
            )
        ),
    ],
)
def test_a_number_that_no_row_can_hold_is_refused(text: str) -> None:
    codec.decode_from_agent(observed(EXIT))
    with pytest.raises(BadFrame, match="agent's frame"):
        codec.decode_from_agent(text)


@pytest.mark.limit("happenings_per_observation")
def test_an_observation_has_at_most_sixteen_happenings() -> None:
    started = ['{"h":"started","at":1}'] * limits.HAPPENINGS_PER_OBSERVATION
    codec.decode_from_agent(observed(",".join(started)))
    with pytest.raises(BadFrame, match="16"):
        codec.decode_from_agent(observed(",".join([*started, started[0]])))


def test_a_message_that_was_not_split_is_a_fault_of_ours() -> None:
    with pytest.raises(AssertionError, match="must be split"):
        codec.encode(messages.Inventory({"a": "x" * limits.CONTROL_FRAME_BYTES}))


@pytest.mark.limit("server_keys")
def test_more_rotations_than_the_limit_are_no_frame() -> None:
    one = SignedKey(NewKey("c", "k", b"k" * 32, "j", 1), b"s" * 64)
    for many in (limits.SERVER_KEYS, limits.SERVER_KEYS + 1):
        frame = codec.encode(messages.NewKeys((one,) * many))
        if many == limits.SERVER_KEYS:
            assert isinstance(codec.decode_from_server(frame), messages.NewKeys)
        else:
            with pytest.raises(BadFrame):
                codec.decode_from_server(frame)


@given(
    st.binary(max_size=300), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 7)
)
def test_any_header_is_a_frame_or_refused(
    body: bytes, offset: int, raw_length: int, flags: int
) -> None:
    """Whatever stands in a binary frame: a value that keeps to the limits, or BadFrame."""
    header = HEADER.pack(1 + flags // 4, flags % 4, flags // 6, raw_length, offset, bytes(16))
    try:
        frame = codec.decode_log(header + body)
    except BadFrame:
        return
    assert frame.offset <= 2**62
    assert frame.raw_length <= chunks.BODY_MAX
    assert bytes(frame.body) == body


NAMES = st.sampled_from(
    ["version", "node", "nonce", "attempts", "clock", "sequence", "revision", "facts", "step"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)


@given(
    st.sampled_from(["hello", "observed", "heartbeat", "inventory"]),
    st.dictionaries(NAMES, JSON, max_size=8),
)
def test_any_json_is_a_message_or_refused(tag: str, fields: dict[str, object]) -> None:
    try:
        message = codec.decode_from_agent(json.dumps({"t": tag, **fields}))
    except BadFrame:
        return
    assert codec.decode_from_agent(codec.encode(message)) == message
