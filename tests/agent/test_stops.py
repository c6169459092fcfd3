"""Who may stop what runs: the server that signs, and nobody who stands in its place."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest
from nacl import bindings

from fleetwire.core.desired import Wanted
from fleetwire.core.envelopes import NewKey, SignedKey, key_bytes
from fleetwire.core.happenings import Exited, Started
from fleetwire.core.specs import Script
from fleetwire.core.stops import SignedWord, StopOrder, StopsWord, stop_bytes, word_bytes
from fleetwire.protocol import codec, messages
from fleetwire.protocol.versions import FEATURES, SIGNED_STOPS
from fleetwire.testing.fake_server import CLUSTER, KEY_ID, FakeAttempt, new_id
from fleetwire.testing.real_agent import RealAgent as Lab

Play = Callable[[Callable[[Lab], Coroutine[Any, Any, None]]], None]
pytestmark = pytest.mark.slow
OLDER = tuple(one for one in FEATURES if one != SIGNED_STOPS)
LIVES = Script("trap '' TERM; echo up; while :; do sleep 0.1; done")
THIEF = bindings.crypto_sign_seed_keypair(bytes(32))[1]


async def living(lab: Lab) -> FakeAttempt:
    attempt = lab.server.want(lab.node, LIVES)
    await lab.server.wait(lambda: attempt.length and attempt.happened(Started))
    return attempt


def say(lab: Lab, *wanted: Wanted) -> None:
    frame = messages.DesiredFrame(lab.node.revision, "active", wanted)
    lab.server.send_raw(lab.node, codec.encode(frame))


def stop_of(attempt: FakeAttempt, stop: StopOrder | None, grace: float | None = 0.0) -> Wanted:
    return Wanted(attempt.id, attempt.epoch, "stop", grace=grace, stop=stop)


async def still_lives(lab: Lab, *attempts: FakeAttempt) -> None:
    """What was said before is carried out by now, and they go on."""
    after = lab.server.want(lab.node, Script("true"))
    await lab.server.wait(lambda: after.sealed)
    assert [attempt.final for attempt in attempts] == [False] * len(attempts)


def knows(lab: Lab) -> bool:
    """Whether the agent has it in writing that its server signs stops."""
    kept = msgspec.json.decode((lab.state / "identity.json").read_bytes())
    return bool(kept["signs_stops"])


async def ends(lab: Lab, attempt: FakeAttempt) -> None:
    await lab.server.wait(lambda: attempt.sealed)
    assert isinstance(attempt.exit, Exited)
    assert (attempt.exit.cause, attempt.exit.signal) == ("stopped", 9)


def test_a_server_double_without_the_signing_key_stops_nothing(play: Play) -> None:
    """It has the address, the certificate, and may say that it has never heard of signed stops."""

    async def scenario(lab: Lab) -> None:
        await lab.up()
        attempt = await living(lab)
        honest = lab.server._secret
        lab.server._secret = THIEF
        lab.server.stop_attempt(attempt, grace=0)
        await lab.server.wait(lambda: lab.node.refused)
        say(lab, stop_of(attempt, None))
        await lab.server.wait(lambda: len(lab.node.refused) == 2)
        say(lab, stop_of(attempt, None))  # told once, however often it is said
        lab.server._secret = honest
        await still_lives(lab, attempt)
        forged, unsigned = lab.node.refused
        assert (forged.attempt, forged.epoch) == (attempt.id, attempt.epoch)
        assert "signature is wrong" in forged.reason
        assert "not signed" in unsigned.reason
        # Nor does an agent that begins again forget what its server does.
        lab.kill()
        lab.server.manners.features = OLDER
        lab.launch()
        await lab.connected(2)
        say(lab, stop_of(attempt, None))
        await still_lives(lab, attempt)
        assert len(lab.node.refused) == 2
        assert "is that the server?" in lab.stderr()
        # Its server hears of that as soon as it is there again.
        lab.server.manners.features = FEATURES
        await lab.server.drop(lab.node)
        await lab.server.wait(lambda: len(lab.node.refused) == 3)
        lab.server.stop_attempt(attempt, grace=60)
        lab.server.stop_attempt(attempt, grace=0)
        await ends(lab, attempt)

    play(scenario)


def test_a_signed_stop_is_good_for_what_it_names_alone(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up()
        first = await living(lab)
        recorded = lab.server.sign_stop(first, grace=0.0)
        lab.server.stop_attempt(first, grace=0.0)
        await ends(lab, first)
        second = await living(lab)
        own = lab.server.sign_stop(second, grace=60.0)

        def resigned(**fields: object) -> StopOrder:
            envelope = msgspec.structs.replace(own.envelope, **fields)
            signature = bindings.crypto_sign(stop_bytes(envelope), lab.server._secret)[:64]
            return StopOrder(envelope, KEY_ID, signature)

        older = second.epoch - 1
        replayed = Wanted(second.id, older, "stop", grace=60.0, stop=resigned(epoch=older))
        cut = msgspec.structs.replace(own.envelope, grace_ms=0)
        says = [
            ("another attempt", stop_of(second, recorded)),
            ("another grace", stop_of(second, own, grace=0.0)),
            ("signature is wrong", stop_of(second, StopOrder(cut, KEY_ID, own.signature))),
            ("does not know", stop_of(second, StopOrder(own.envelope, "k9", own.signature), 60.0)),
            ("another node", stop_of(second, resigned(node=new_id()), 60.0)),
            ("another cluster", stop_of(second, resigned(cluster="c"), 60.0)),
            ("another epoch", stop_of(second, resigned(epoch=older), 60.0)),
            ("older epoch", replayed),
        ]  # fmt: skip
        for number, (why, wanted) in enumerate(says, 1):
            say(lab, wanted)
            await lab.server.wait(lambda n=number: len(lab.node.refused) == n)
            assert why in lab.node.refused[-1].reason
        # A replay of what has ended anyway is no news, nor is the same stop said twice.
        say(lab, stop_of(first, recorded))
        await still_lives(lab, second)
        assert len(lab.node.refused) == len(says)
        now = lab.server.sign_stop(second, grace=0.0)
        say(lab, stop_of(second, now), stop_of(second, now))
        await ends(lab, second)
        assert len(lab.node.refused) == len(says)

    play(scenario)


def test_an_older_server_stops_as_ever_until_its_word_is_heard(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        lab.server.manners.features = OLDER
        await lab.up()
        # A word that somebody else gives is none: or anybody could take stops from the real one.
        said = StopsWord(CLUSTER, 1)
        forged = bindings.crypto_sign(word_bytes(said), THIEF)[:64]
        word = SignedWord(said, KEY_ID, forged)
        lab.server.send_raw(lab.node, codec.encode(messages.StopsSigned(word)))
        first, second = await living(lab), await living(lab)
        lab.server.stop_attempt(first, grace=0)
        await ends(lab, first)
        assert not knows(lab)
        lab.server.manners.features = FEATURES  # it was updated
        await lab.server.drop(lab.node)
        await lab.connected(2)
        await lab.eventually(lambda: knows(lab))  # it reports before it reads on
        say(lab, stop_of(second, None))
        await lab.server.wait(lambda: lab.node.refused)
        lab.server.stop_attempt(second, grace=0)
        await ends(lab, second)

    play(scenario)


def test_stops_follow_a_rotation_of_the_signing_key(play: Play) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.up()
        attempts = [await living(lab) for _ in range(3)]
        old = lab.server._secret
        chain: list[SignedKey] = []
        for number, attempt in enumerate(attempts[:2], 1):
            public, secret = bindings.crypto_sign_seed_keypair(bytes([number]) * 32)
            before = KEY_ID if number == 1 else "k1"
            word = NewKey(CLUSTER, f"k{number}", public, before, number)
            signature = bindings.crypto_sign(key_bytes(word), lab.server._secret)[:64]
            chain.append(SignedKey(word, signature))
            lab.server.send_raw(lab.node, codec.encode(messages.NewKeys(tuple(chain))))
            lab.server._secret = secret
            stop = lab.server.sign_stop(attempt, grace=0.0)
            say(lab, stop_of(attempt, msgspec.structs.replace(stop, key=word.id)))
            await ends(lab, attempt)
        # The first key counts no more, the last two do.
        lab.server._secret = old
        say(lab, stop_of(attempts[2], lab.server.sign_stop(attempts[2], grace=0.0)))
        await lab.server.wait(lambda: lab.node.refused)
        assert "does not know" in lab.node.refused[0].reason
        lab.server._secret = bindings.crypto_sign_seed_keypair(bytes([1]) * 32)[1]
        stop = lab.server.sign_stop(attempts[2], grace=0.0)
        say(lab, stop_of(attempts[2], msgspec.structs.replace(stop, key="k1")))
        await ends(lab, attempts[2])

    play(scenario)
