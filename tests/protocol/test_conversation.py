"""Both sides of one link against each other, and each against a peer that breaks the rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetwire.core import chunks, limits
from fleetwire.core.desired import Desired, Observation, Observed, Order, Wanted
from fleetwire.core.envelopes import Envelope
from fleetwire.core.happenings import Started
from fleetwire.core.ids import make_id
from fleetwire.core.specs import Script
from fleetwire.protocol import codec, messages, versions
from fleetwire.protocol.conversation import (
    AgentConversation,
    Closed,
    Opened,
    Phase,
    ServerConversation,
    SignatureNeeded,
    VerifyNeeded,
)

NODE = make_id(1, b"0123456789")
OTHER = make_id(2_000_000, b"0123456789")
SIGNATURE = b"s" * 64
WELCOME = messages.Welcome(link_epoch=3, heartbeat_s=10, lease_s=60, credit=1000, clock=9)


def server() -> ServerConversation:
    return ServerConversation(cluster="c", node=NODE, nonce="s" * 32, clock=8)


def agent(cluster: str = "c") -> AgentConversation:
    return AgentConversation(
        node=NODE,
        cluster=cluster,
        server_name="host:8080",
        incarnation="i",
        boot_id="b",
        agent_version="0.1",
        generation=4,
        nonce="a" * 32,
    )


def pump(
    one: ServerConversation | AgentConversation, two: ServerConversation | AgentConversation
) -> None:
    for frame in one.data_to_send():
        two.receive(frame)


def opened() -> tuple[ServerConversation, AgentConversation]:
    here, there = server(), agent()
    pump(here, there)
    (needed,) = there.events_received()
    assert isinstance(needed, SignatureNeeded)
    there.greet(SIGNATURE, clock=5)
    pump(there, here)
    (verify,) = here.events_received()
    assert isinstance(verify, VerifyNeeded)
    # What the agent was asked to sign is what the server is asked to verify.
    assert (verify.signed, verify.signature) == (needed.signed, SIGNATURE)
    here.welcome(WELCOME)
    pump(here, there)
    assert there.events_received() == [Opened(WELCOME)]
    assert here.phase is there.phase is Phase.OPEN
    assert there.credit.free == 1000
    return here, there


def test_both_nonces_and_the_dialled_name_are_signed() -> None:
    here, there = server(), agent()
    pump(here, there)
    (needed,) = there.events_received()
    assert isinstance(needed, SignatureNeeded)
    for part in (b'"' + b"s" * 32, b'"' + b"a" * 32, b"host:8080", NODE.encode(), b'"version":1'):
        assert part in needed.signed


def test_a_day_on_the_link() -> None:
    here, there = opened()
    desired = Desired(1, "active", (Wanted(OTHER, 7, "run", have=5),))
    here.send_desired(desired)
    pump(here, there)
    assert there.events_received() == [desired]

    assert there.credit.position(OTHER) == 5
    body = chunks.encode([chunks.Piece(1, 3, 0)], [b"abc"])
    there.send_log(OTHER, 5, 8, len(body), body)
    there.send_observed(Observed(1, (Observation(OTHER, 7, (Started(1),), 8),), complete=True))
    there.send_heartbeat(messages.Heartbeat(1, 2, busy=1))
    there.send_inventory({"os": "linux"})
    assert there.credit.free == 997
    pump(there, here)
    log, observed, heartbeat, inventory = here.events_received()
    assert isinstance(log, codec.LogFrame)
    assert (log.attempt, log.offset, bytes(log.body)) == (OTHER, 5, body)
    assert observed == Observed(1, (Observation(OTHER, 7, (Started(1),), 8),), complete=True)
    assert heartbeat == messages.Heartbeat(1, 2, busy=1)
    assert inventory == messages.Inventory({"os": "linux"})

    answers: tuple[messages.Durable, messages.Beat, messages.Sealed] = (
        messages.Durable(OTHER, 8),
        messages.Beat(1, 3),
        messages.Sealed((OTHER,)),
    )
    for answer in answers:
        here.send(answer)
    pump(here, there)
    assert there.events_received() == list(answers)
    assert there.credit.free == 1000
    assert there.credit.position(OTHER) is None


def test_a_later_level_does_not_move_the_position() -> None:
    here, there = opened()
    here.send_desired(Desired(1, "active", (Wanted(OTHER, 7, "run", have=5),)))
    pump(here, there)
    there.send_log(OTHER, 5, 9, 1, b"x")
    here.send_desired(Desired(1, "active", (Wanted(OTHER, 7, "stop", have=5),)))
    pump(here, there)
    assert there.credit.position(OTHER) == 9
    here.send(messages.Resend(OTHER, 2))
    here.send(messages.Unknown((NODE,)))
    pump(here, there)
    assert there.credit.position(OTHER) == 2


def test_frames_of_one_attempt_go_in_order() -> None:
    here, there = opened()
    here.send_desired(Desired(1, "active", (Wanted(OTHER, 7, "run"),)))
    pump(here, there)
    with pytest.raises(AssertionError, match="out of order"):
        there.send_log(OTHER, 5, 9, 1, b"x")


@pytest.mark.limit("credit_bytes")
def test_a_credit_above_ours_is_not_used() -> None:
    here, there = server(), agent()
    pump(here, there)
    there.greet(SIGNATURE, clock=5)
    pump(there, here)
    here.welcome(messages.Welcome(1, 10, 60, credit=2**40, clock=1))
    pump(here, there)
    assert there.credit.limit == limits.CREDIT_BYTES


def order(attempt: str, script: str) -> Order:
    envelope = Envelope("c", NODE, "r", attempt, 1, "script", "00", 0, 0)
    return Order(Script(script), envelope, "k", SIGNATURE)


@given(st.lists(st.integers(0, limits.SCRIPT_BYTES), max_size=8))
def test_levels_are_split_into_frames_within_the_limit(sizes: list[int]) -> None:
    here, there = opened()
    wanted = tuple(
        Wanted(make_id(n * 1000, b"0123456789"), 1, "run", order=order("x", "y" * size))
        for n, size in enumerate(sizes)
    )
    here.send_desired(Desired(1, "active", wanted))
    frames = here.data_to_send()
    assert all(len(frame) <= limits.CONTROL_FRAME_BYTES for frame in frames)
    for frame in frames:
        there.receive(frame)
    events = there.events_received()
    assert tuple(
        one for event in events if isinstance(event, Desired) for one in event.attempts
    ) == (wanted)


@pytest.mark.limit("observations_per_frame")
@pytest.mark.parametrize("count", [0, 1, 1000, 1001, 2500])
def test_only_the_last_frame_of_a_report_is_complete(count: int) -> None:
    here, there = opened()
    observations = tuple(Observation(make_id(n * 1000, b"0123456789"), 1) for n in range(count))
    there.send_observed(Observed(1, observations, complete=True))
    pump(there, here)
    events = here.events_received()
    assert all(isinstance(event, Observed) for event in events)
    assert [event.complete for event in events if isinstance(event, Observed)] == (
        [False] * (len(events) - 1) + [True]
    )
    assert len(events) == max(1, -(-count // limits.OBSERVATIONS_PER_FRAME))


def test_too_many_observations_in_one_frame_are_refused() -> None:
    here, _ = opened()
    one = '{"attempt":"' + OTHER + '","epoch":1}'
    for count, code in ((1000, None), (1001, messages.CLOSE_BAD_FRAME)):
        many = ",".join([one] * count)
        here.receive('{"t":"observed","revision":0,"attempts":[' + many + "]}")
        assert here.close_code == code


def hello(**change: object) -> str:
    values: dict[str, object] = {
        "version": 1,
        "node": NODE,
        "incarnation": "i",
        "boot_id": "b",
        "agent_version": "0.1",
        "nonce": "a" * 32,
        "server_name": "h",
        "generation": 0,
        "clock": 1,
        "signature": SIGNATURE,
    }
    return codec.encode(messages.Hello(**(values | change)))  # type: ignore[arg-type]  # data


@pytest.mark.parametrize(
    ("frames", "code", "said"),
    [
        (["nonsense"], messages.CLOSE_BAD_FRAME, "not a message"),
        ([b"\1" + bytes(31)], messages.CLOSE_BAD_FRAME, "before the hello"),
        (
            [codec.encode(messages.Heartbeat(1, 2))],
            messages.CLOSE_BAD_FRAME,
            "Heartbeat came before",
        ),
        ([hello(), hello()], messages.CLOSE_BAD_FRAME, "second hello"),
        ([hello(), codec.encode(messages.Heartbeat(1, 2))], messages.CLOSE_BAD_FRAME, "before"),
        ([hello(node=OTHER)], messages.CLOSE_BAD_FRAME, "another node"),
        ([hello(version=99)], messages.CLOSE_VERSION, "the agent 99"),
    ],
)
def test_a_server_closes_on_a_peer_that_breaks_the_rules(
    frames: list[str | bytes], code: int, said: str
) -> None:
    here = server()
    for frame in frames:
        here.receive(frame)
    assert here.phase is Phase.CLOSED
    assert here.close_code == code
    assert said in here.close_reason
    *_, last = here.events_received()
    assert isinstance(last, Closed)
    here.receive(hello())
    assert here.events_received() == []


CHALLENGE = codec.encode(messages.Challenge((1,), "c", "s" * 32, 1))


@pytest.mark.parametrize(
    ("frames", "code", "said"),
    [
        (["nonsense"], messages.CLOSE_BAD_FRAME, "not a message"),
        ([b"bytes"], messages.CLOSE_BAD_FRAME, "binary frame"),
        ([codec.encode(WELCOME)], messages.CLOSE_BAD_FRAME, "without our hello"),
        ([CHALLENGE, codec.encode(WELCOME)], messages.CLOSE_BAD_FRAME, "without our hello"),
        ([CHALLENGE, CHALLENGE], messages.CLOSE_BAD_FRAME, "second challenge"),
        ([codec.encode(messages.Beat(1, 2))], messages.CLOSE_BAD_FRAME, "before the welcome"),
        (
            [codec.encode(messages.Challenge((2, 3), "c", "s" * 32, 1))],
            messages.CLOSE_VERSION,
            "(2, 3)",
        ),
        (
            [codec.encode(messages.Challenge((1,), "elsewhere", "s" * 32, 1))],
            messages.CLOSE_UNAUTHENTICATED,
            "another cluster",
        ),
    ],
)
def test_an_agent_closes_on_a_peer_that_breaks_the_rules(
    frames: list[str | bytes], code: int, said: str
) -> None:
    there = agent()
    for frame in frames:
        there.receive(frame)
    assert there.phase is Phase.CLOSED
    assert there.close_code == code
    assert said in there.close_reason
    *_, last = there.events_received()
    assert isinstance(last, Closed)
    there.receive(CHALLENGE)
    assert there.events_received() == []


def test_steps_out_of_order_are_faults_of_ours() -> None:
    with pytest.raises(AssertionError, match="welcome in phase"):
        server().welcome(WELCOME)
    there = agent()
    with pytest.raises(AssertionError, match="greet in phase"):
        there.greet(SIGNATURE, clock=1)


def test_the_first_close_reason_stands_and_fits_into_a_close_frame() -> None:
    here = server()
    here.close(messages.CLOSE_LATER, "é" * 200)
    here.close(messages.CLOSE_FORBIDDEN, "second")
    assert here.close_code == messages.CLOSE_LATER
    assert len(here.close_reason.encode()) <= 123


@given(st.lists(st.one_of(st.binary(max_size=64), st.text(max_size=64))))
def test_no_garbage_ever_raises(frames: list[str | bytes]) -> None:
    here, there = opened()
    for frame in frames:
        here.receive(frame)
        there.receive(frame)
    assert (here.close_code is None) == (not frames)


def test_the_newest_common_version_is_chosen() -> None:
    assert versions.common_version((1, 2, 3)) == 1
    assert versions.common_version((0,)) is None
    assert versions.common_version(()) is None
