from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from fleetwire.agent import keys
from fleetwire.core.envelopes import (
    Envelope,
    HelloClaim,
    NewKey,
    SignedKey,
    hello_bytes,
    key_bytes,
    learn,
    objection,
    order_bytes,
    spec_sha256,
)
from fleetwire.core.secrets import SecretUse, sealed_sha256
from fleetwire.core.specs import Ping, Script, Scripted, Spec, Step

SPEC = Script("true", env={"B": "2", "A": "1"})
ENVELOPE = Envelope(
    cluster="c",
    node="n",
    run="r",
    attempt="a",
    epoch=7,
    kind="script",
    spec_sha256=spec_sha256(SPEC),
    issued_at=1,
    expires_at=100,
)
CLAIM = HelloClaim("c", "n", "s" * 32, "a" * 32, "host:1", "i", "b", 3, 1)


def test_canonical_bytes_are_frozen() -> None:
    assert order_bytes(ENVELOPE) == (
        b"fleetwire order 1\n"
        b'{"attempt":"a","cluster":"c","epoch":7,"expires_at":100,"issued_at":1,'
        b'"kind":"script","node":"n","run":"r",'
        b'"spec_sha256":"%s"}' % ENVELOPE.spec_sha256.encode()
    )
    assert hello_bytes(CLAIM) == (
        b"fleetwire hello 1\n"
        b'{"agent_nonce":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","boot_id":"b","cluster":"c",'
        b'"generation":3,"incarnation":"i","node":"n","server_name":"host:1",'
        b'"server_nonce":"ssssssssssssssssssssssssssssssss","version":1}'
    )


def test_the_order_of_an_environment_does_not_matter() -> None:
    assert spec_sha256(SPEC) == spec_sha256(Script("true", env={"A": "1", "B": "2"}))
    assert spec_sha256(SPEC) != spec_sha256(Script("true", env={"A": "2", "B": "1"}))


@pytest.mark.parametrize(
    "spec",
    [
        Script("true"),
        Script("true", timeout=5, grace=1),
        Ping(timeout=3),
        Scripted((Step("sleep", seconds=1),), timeout=9),
    ],
)
def test_a_spec_has_one_hash_wherever_it_was_made(spec: Spec) -> None:
    decoded = msgspec.json.decode(msgspec.json.encode(spec), type=Spec)
    assert spec_sha256(decoded) == spec_sha256(spec)


@pytest.mark.parametrize("field", [f.name for f in msgspec.structs.fields(Envelope)])
def test_every_field_of_an_envelope_is_signed(field: str) -> None:
    value = getattr(ENVELOPE, field)
    if value is msgspec.UNSET:
        value = ""
    other = value + 1 if isinstance(value, int) else value + "x"
    assert order_bytes(msgspec.structs.replace(ENVELOPE, **{field: other})) != order_bytes(ENVELOPE)


@pytest.mark.parametrize("field", [f.name for f in msgspec.structs.fields(HelloClaim)])
def test_every_field_of_a_hello_is_signed(field: str) -> None:
    value = getattr(CLAIM, field)
    other = value + 1 if isinstance(value, int) else value + "x"
    assert hello_bytes(msgspec.structs.replace(CLAIM, **{field: other})) != hello_bytes(CLAIM)


HERE: dict[str, Any] = {"cluster": "c", "node": "n", "attempt": "a", "epoch": 7, "now": 100}


def test_a_fitting_envelope_has_no_objection() -> None:
    assert objection(ENVELOPE, SPEC, **HERE) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cluster": "d"}, "another cluster"),
        ({"node": "m"}, "another node"),
        ({"attempt": "b"}, "another attempt"),
        ({"epoch": 8}, "another epoch"),
        ({"now": 101}, "expired"),
    ],
)
def test_a_foreign_or_expired_envelope_is_refused(change: dict[str, Any], said: str) -> None:
    assert said in str(objection(ENVELOPE, SPEC, **(HERE | change)))


def test_another_spec_is_refused() -> None:
    assert objection(ENVELOPE, Script("rm"), **HERE) == "the order is signed for another spec"


ENVELOPES = st.builds(
    Envelope, *[st.text(max_size=40)] * 4, st.integers(0, 2**53 - 1), *[st.text(max_size=40)] * 2,
    st.integers(0, 2**53), st.integers(0, 2**53),
)  # fmt: skip
SIGNER = SigningKey(bytes(range(32)))
PUBLIC = bytes(SIGNER.verify_key)


def holds(envelope: Envelope, signature: bytes, key: bytes = PUBLIC) -> bool:
    return keys.verifies(key, order_bytes(envelope), signature)


@given(ENVELOPES, ENVELOPES)
def test_a_signature_holds_for_its_own_envelope_and_for_no_other(
    signed: Envelope, other: Envelope
) -> None:
    signature = SIGNER.sign(order_bytes(signed)).signature
    assert holds(signed, signature)
    assert holds(other, signature) is (other == signed)
    assert (order_bytes(other) == order_bytes(signed)) is (other == signed)


@given(ENVELOPES, st.binary(max_size=100), st.binary(min_size=32, max_size=32))
def test_no_bytes_and_no_other_key_pass_for_a_signature(
    envelope: Envelope, noise: bytes, key: bytes
) -> None:
    assert not holds(envelope, noise)
    signature = SIGNER.sign(order_bytes(envelope)).signature
    assert holds(envelope, signature, key) is (key == PUBLIC)
    for place in (0, 31, 63):
        broken = bytearray(signature)
        broken[place] ^= 1
        assert not holds(envelope, bytes(broken))


@given(ENVELOPES, st.sampled_from(["cluster", "node", "attempt", "epoch", "spec", "late"]))
def test_a_signed_envelope_covers_nothing_but_what_it_names(envelope: Envelope, wrong: str) -> None:
    envelope = msgspec.structs.replace(envelope, spec_sha256=spec_sha256(SPEC))
    here: dict[str, Any] = {
        "cluster": envelope.cluster, "node": envelope.node, "attempt": envelope.attempt,
        "epoch": envelope.epoch, "now": envelope.expires_at,
    }  # fmt: skip
    assert objection(envelope, SPEC, **here) is None
    spec: Spec = SPEC
    match wrong:
        case "epoch":
            here["epoch"] += 1
        case "late":
            here["now"] += 1
        case "spec":
            spec = Script("false")
        case _:
            here[wrong] += "x"
    assert objection(envelope, spec, **here) is not None


def signed_key(old: SigningKey, new: SigningKey, cluster: str = "c") -> SignedKey:
    word = NewKey(cluster, name_of(new), bytes(new.verify_key), name_of(old), 1)
    return SignedKey(word, old.sign(key_bytes(word)).signature)


def name_of(key: SigningKey) -> str:
    return bytes(key.verify_key).hex()[:16]


def known(*some: SigningKey) -> dict[str, bytes]:
    return {name_of(key): bytes(key.verify_key) for key in some}


def heard(have: dict[str, bytes], *chain: SignedKey) -> dict[str, bytes]:
    return learn(have, chain, cluster="c", verifies=keys.verifies)


def test_keys_follow_one_another_and_two_count() -> None:
    a, b, c, thief = (SigningKey(bytes([number]) * 32) for number in range(4))
    one, two = signed_key(a, b), signed_key(b, c)
    assert heard(known(a), one) == known(a, b)
    assert list(heard(known(a), one)) == [name_of(a), name_of(b)]
    assert heard(known(a), one, two) == known(b, c)
    assert heard(known(b, c), one, two) == known(b, c)  # heard again: nothing goes back
    assert heard(known(c), one, two) == known(c)  # enrolled after both
    # The old key, stolen after the first rotation, names nobody any more.
    assert heard(known(a, b), signed_key(a, thief)) == known(a, b)
    assert heard(known(a), signed_key(thief, b)) == known(a)
    assert heard(known(a), signed_key(a, b, "another cluster")) == known(a)
    forged = SignedKey(one.new, signed_key(a, c).signature)
    assert heard(known(a), forged) == known(a)
    assert heard(known(a), two, one) == known(a, b)  # out of its order: only what follows


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=8))
def test_whatever_is_heard_at_most_two_keys_count_and_one_stays(
    pairs: list[tuple[int, int]],
) -> None:
    some = [SigningKey(bytes([number]) * 32) for number in range(6)]
    have = known(some[0])
    for old, new in pairs:
        before = have
        have = heard(have, signed_key(some[old], some[new]))
        assert 1 <= len(have) <= 2
        assert next(reversed(before)) in have


def test_what_is_sealed_is_bound_by_the_signature() -> None:
    spec = msgspec.structs.replace(SPEC, secrets=(SecretUse("db"),))
    sealed = b"sealed"
    envelope = msgspec.structs.replace(
        ENVELOPE, spec_sha256=spec_sha256(spec), secrets_sha256=sealed_sha256(sealed)
    )
    where: dict[str, Any] = {
        "cluster": envelope.cluster,
        "node": envelope.node,
        "attempt": envelope.attempt,
        "epoch": envelope.epoch,
        "now": envelope.issued_at,
    }
    assert objection(envelope, spec, **where, secrets=sealed) is None
    assert "other secrets" in str(objection(envelope, spec, **where, secrets=b"others"))
    assert "other secrets" in str(objection(envelope, spec, **where))
    bare = msgspec.structs.replace(envelope, secrets_sha256=msgspec.UNSET)
    assert "not those that its spec names" in str(objection(bare, spec, **where))
