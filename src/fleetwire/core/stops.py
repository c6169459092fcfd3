"""Signed stops: what a stop order binds together, and what it covers on a node.

Nobody takes a stop back, and each further one can only be more urgent: so an order needs no expiry,
and one that is played again stops what was to stop anyway. It covers its attempt on its node, begun
under its epoch or an older one: what began under a newer one is another assignment.

A node that knows that its server signs stops takes no others. That it does so the server says with
its key (`StopsWord`), because what a peer says of its own features anybody can say.
"""

from __future__ import annotations

from typing import Final

import msgspec

STOP_DOMAIN: Final = b"fleetwire stop 1\n"
WORD_DOMAIN: Final = b"fleetwire stops are signed 1\n"


class StopEnvelope(msgspec.Struct, frozen=True):
    """What the server's signature over a stop binds together. `grace_ms`: between TERM and KILL,
    None for the grace of the start's own spec; `issued_at`: microseconds since 1970.
    """

    cluster: str
    node: str
    run: str
    attempt: str
    epoch: int
    grace_ms: int | None
    issued_at: int


class StopOrder(msgspec.Struct, frozen=True):
    """A stop with the server's signature over its envelope, by the key of this id."""

    envelope: StopEnvelope
    key: str
    signature: bytes


class StopsWord(msgspec.Struct, frozen=True):
    """The server signs the stops of this cluster, from `issued_at` on (microseconds)."""

    cluster: str
    issued_at: int


class SignedWord(msgspec.Struct, frozen=True):
    """The word with the server's signature, by the key of this id."""

    word: StopsWord
    key: str
    signature: bytes


_encoder = msgspec.json.Encoder(order="sorted")


def stop_bytes(envelope: StopEnvelope) -> bytes:
    """Return the bytes that the server signs for a stop."""
    return STOP_DOMAIN + _encoder.encode(envelope)


def word_bytes(word: StopsWord) -> bytes:
    """Return the bytes that the server signs to say that it signs stops."""
    return WORD_DOMAIN + _encoder.encode(word)


def in_ms(grace: float | None) -> int | None:
    """Return a grace of seconds as it is signed."""
    return None if grace is None else round(grace * 1000)


def stop_objection(  # each argument is one thing the signature must bind
    envelope: StopEnvelope,
    *,
    cluster: str,
    node: str,
    attempt: str,
    epoch: int,
    grace: float | None,
    begun: int | None,
) -> str | None:
    """Say why a correctly signed stop does not cover this wish here, or None. `epoch` and `grace`
    (seconds) are the wish's own; `begun` the epoch that the attempt began under, if it has.
    """
    facts: tuple[tuple[str, object, object], ...] = (
        ("another cluster", envelope.cluster, cluster),
        ("another node", envelope.node, node),
        ("another attempt", envelope.attempt, attempt),
        ("another epoch", envelope.epoch, epoch),
        ("another grace", envelope.grace_ms, in_ms(grace)),
    )
    for what, signed, here in facts:
        if signed != here:
            return f"the stop is signed for {what}"
    if begun is not None and begun > envelope.epoch:
        return f"the stop is signed for an older epoch than {begun}, under which it began"
    return None
