"""Golden frames: what stands in golden/ was once sent by a released version and must be read
for ever. Frozen from release 0.1.0; before it a change needs a note in docs/decisions.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fleetwire.core import chunks, clones
from fleetwire.core.chunks import Piece
from fleetwire.core.desired import Observation, Order, Wanted
from fleetwire.core.envelopes import Envelope, NewKey, SignedKey
from fleetwire.core.happenings import Declined, Exited, Lost, NeverStarted, Started
from fleetwire.core.specs import Ping, Resources, Script, Scripted, Step
from fleetwire.core.stops import SignedWord, StopEnvelope, StopOrder, StopsWord
from fleetwire.protocol import codec, messages

FOLDER = Path(__file__).parent / "golden"
FREE = {"facts", "env"}
A = "0190b7f0-1c2d-7abc-8def-0123456789ab"
B = "0190b7f0-1c2d-7abc-8def-0123456789ac"
ENVELOPE = Envelope("c1", A, B, B, 4294967297, "script", "ab" * 32, 1, 2)
STOP = StopEnvelope("c1", A, B, B, 2, 1500, 9)
EXIT = Exited(
    at=2, cause="deadline", exit_code=None, signal=9, started_at=1, duration=0.5, length=3,
    sha256="cd" * 32, leftovers=1, error="why",
)  # fmt: skip
HAPPENINGS = (Started(1), EXIT, Lost(1, "r"), Declined(1, "r", final=True), NeverStarted(1))
SCRIPT = Script("true\n", "bash", ("a",), {"K": "v"}, tty=True, timeout=5.5, grace=1)
CONFINED = Script("true\n", run_as="www", resources=Resources(memory=67108864, cpus=1, core=0))
SCRIPTED = Scripted((Step("print", text="x", stream=2, count=2, seconds=0.1), Step("exit", code=3)))


def order(spec: Script | Ping | Scripted) -> Order:
    return Order(spec, ENVELOPE, "k1", b"\1" * 64)


FROM_SERVER: dict[str, messages.FromServer] = {
    "challenge": messages.Challenge((1,), "c1", "s" * 32, 9, ("zstd",)),
    "welcome": messages.Welcome(3, 10.0, 60.0, 4194304, 9),
    "desired": messages.DesiredFrame(
        2,
        "draining",
        (
            Wanted(A, 4294967297, "run", order=order(SCRIPT)),
            Wanted(A, 1, "run", order=order(Ping())),
            Wanted(A, 1, "run", order=order(SCRIPTED)),
            Wanted(B, 2, "stop", 77, grace=1.5),
            Wanted(B, 2, "forget"),
        ),
    ),
    "desired-confined": messages.DesiredFrame(
        2, "active", (Wanted(A, 1, "run", order=order(CONFINED)),)
    ),
    "desired-stop": messages.DesiredFrame(
        2, "active", (Wanted(B, 2, "stop", grace=1.5, stop=StopOrder(STOP, "k1", b"\1" * 64)),)
    ),
    "stops-signed": messages.StopsSigned(SignedWord(StopsWord("c1", 9), "k1", b"\1" * 64)),
    "durable": messages.Durable(A, 5),
    "resend": messages.Resend(A, 5),
    "sealed": messages.Sealed((A, B)),
    "unknown": messages.Unknown((A,)),
    "beat": messages.Beat(1, 9),
    "new-keys": messages.NewKeys((SignedKey(NewKey("c1", "k2", b"\3" * 32, "k1", 9), b"\4" * 64),)),
}
FROM_AGENT: dict[str, messages.FromAgent] = {
    "hello": messages.Hello(
        1, A, "i1", "b1", "0.1.0", "n" * 32, "localhost:8080", 1, 9, b"\2" * 64, ("zstd",)
    ),
    "hello-bound": messages.Hello(
        1,
        A,
        "i1",
        "b1",
        "0.2.0",
        "n" * 32,
        "f:8443",
        1,
        9,
        b"\2" * 64,
        ("zstd", "bound-hello"),
        ca=f"sha256:{'ab' * 32}",
        step=clones.Step(2, "1" * 32, "2" * 32),
    ),
    "observed": messages.ObservedFrame(2, (Observation(A, 1, HAPPENINGS, 3),), complete=True),
    "observed-begins": messages.ObservedFrame(2, (Observation(A, 1, (), 3, begins=2),)),
    "stop-refused": messages.StopRefused(B, 2, 9, "the stop is not signed"),
    "heartbeat": messages.Heartbeat(1, 9, 2, 0.25),
    "inventory": messages.Inventory({"hostname": "web-1", "disks": [{"mount": "/"}]}),
}
PIECES = [Piece(1, 3, 10), Piece(0, 9, 11), Piece(2, 2, 12)]
BODY = chunks.encode(PIECES, [b"abc", b"de"])


def golden(name: str, ours: str) -> str:
    path = FOLDER / name
    if not path.exists():
        path.write_text(ours + "\n")
        pytest.fail(f"{path} was missing and has been written: look at it and commit it")
    return path.read_text().rstrip("\n")


@pytest.mark.parametrize("name", FROM_SERVER)
def test_what_a_server_sends(name: str) -> None:
    frame = golden(f"{name}.json", codec.encode(FROM_SERVER[name]))
    assert frame == codec.encode(FROM_SERVER[name])
    assert codec.decode_from_server(frame) == FROM_SERVER[name]


@pytest.mark.parametrize("name", FROM_AGENT)
def test_what_an_agent_sends(name: str) -> None:
    frame = golden(f"{name}.json", codec.encode(FROM_AGENT[name]))
    assert frame == codec.encode(FROM_AGENT[name])
    assert codec.decode_from_agent(frame) == FROM_AGENT[name]


def with_strangers(value: object) -> object:
    """The same JSON with a field from the future in every object of it that is ours."""
    if isinstance(value, list):
        return [with_strangers(item) for item in value]
    if isinstance(value, dict):
        inside = {key: item if key in FREE else with_strangers(item) for key, item in value.items()}
        return {**inside, "from_the_future": {"a": [1, None]}}
    return value


@pytest.mark.parametrize("name", [*FROM_SERVER, *FROM_AGENT])
def test_fields_from_the_future_change_nothing(name: str) -> None:
    """Promise P24, at every depth. What a node tells of itself and a task's environment have
    names of their own.
    """
    frame = json.dumps(with_strangers(json.loads((FOLDER / f"{name}.json").read_text())))
    if name in FROM_SERVER:
        assert codec.decode_from_server(frame) == FROM_SERVER[name]
    else:
        assert codec.decode_from_agent(frame) == FROM_AGENT[name]


def test_a_log_frame() -> None:
    ours = codec.encode_log(A, 65536, len(BODY), BODY, zstd=False)
    frame = bytes.fromhex(golden("log.hex", ours.hex()))
    assert frame == ours
    log = codec.decode_log(frame)
    assert (log.attempt, log.offset, log.raw_length, log.zstd) == (A, 65536, len(BODY), False)
    pieces, payload = chunks.decode(bytes(log.body))
    assert (pieces, bytes(payload)) == (PIECES, b"abcde")
