"""Whose word a chain has: what a key that is given says, and what none can."""

from __future__ import annotations

import base64

from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from fleetwire.client.audit import (
    FORMAT,
    AuditCheckpoint,
    Beginning,
    Verified,
    check,
)
from fleetwire.core.audit import (
    SERVER,
    Act,
    Checkpoint,
    Head,
    Sealed,
    checkpoint_bytes,
    follow,
    genesis,
)

AT = "2030-01-31T12:00:00.000Z"
AT_US = 1_896_091_200_000_000

seeds = st.binary(min_size=32, max_size=32)


def text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def public(key: SigningKey) -> bytes:
    return bytes(key.verify_key)


def checkpoint(entry: Sealed, key: SigningKey) -> AuditCheckpoint:
    number, hash_ = entry.entry.number, entry.hash.hex()
    said = Checkpoint("c", "p", number, hash_, AT_US, public(key))
    signature = key.sign(checkpoint_bytes(said)).signature
    return AuditCheckpoint(number, hash_, AT, text(public(key)), text(signature))


def look(count: int, signed: int, by: SigningKey, trusted: bytes | None) -> Verified:
    """Verify a chain of so many entries that `by` has signed up to one of them (0: none)."""
    entries = follow(Head(0, genesis("c", "p")), [Act("login", SERVER, "p")] * count, at=1)
    checkpoints = [checkpoint(entries[signed - 1], by)] if signed else []
    beginning = Beginning(FORMAT, "c", "p", text(public(by)), [])
    return check(beginning, entries, checkpoints, key=trusted, known=())


@given(st.integers(0, 6), st.integers(0, 6), seeds, seeds)
def test_with_a_key_nothing_counts_but_what_it_has_signed(
    count: int, signed: int, ours: bytes, theirs: bytes
) -> None:
    signed = min(signed, count)
    key, other = SigningKey(ours), SigningKey(theirs)
    own = look(count, signed, key, public(key))
    # The tail may be unsigned as yet; where all of it is, anybody can have made it.
    assert own.is_good == (signed > 0 or not count)
    assert own.verdict.signed == signed
    assert own.signed_at == (AT if signed else None)
    if ours != theirs:
        assert look(count, signed, other, public(key)).is_good == (not count)


@given(st.integers(0, 6), st.integers(0, 6), seeds)
def test_without_a_key_a_chain_is_whole_or_not(count: int, signed: int, seed: bytes) -> None:
    found = look(count, min(signed, count), SigningKey(seed), None)
    assert found.is_good
    assert not found.is_strange
