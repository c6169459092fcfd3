"""Canonical bytes: exactly what is signed, by whom, for whom.

Every kind of signed thing starts with its own domain line, so that a signature over one kind
can never pass for another. The rest is JSON with sorted keys, no spaces, integers only where
a float could be written two ways.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from fleetwire.core.specs import Spec

ORDER_DOMAIN: Final = b"fleetwire order 1\n"
HELLO_DOMAIN: Final = b"fleetwire hello 1\n"


class Envelope(msgspec.Struct, frozen=True):
    """What the server's signature binds together. Times are microseconds since 1970; the spec
    travels beside it and is bound by its hash.
    """

    cluster: str
    node: str
    run: str
    attempt: str
    epoch: int
    kind: str
    spec_sha256: str
    issued_at: int
    expires_at: int


class HelloClaim(msgspec.Struct, frozen=True):
    """What the node's signature binds together: both nonces make it fresh, the dialled server
    name makes a relayed challenge fail.
    """

    cluster: str
    node: str
    server_nonce: str
    agent_nonce: str
    server_name: str
    incarnation: str
    boot_id: str
    generation: int
    version: int


_encoder = msgspec.json.Encoder(order="sorted")


def spec_sha256(spec: Spec) -> str:
    """Return the hash that binds a spec to its envelope."""
    return hashlib.sha256(_encoder.encode(spec)).hexdigest()


def order_bytes(envelope: Envelope) -> bytes:
    """Return the bytes that the server signs for an order."""
    return ORDER_DOMAIN + _encoder.encode(envelope)


def hello_bytes(claim: HelloClaim) -> bytes:
    """Return the bytes that a node signs to connect."""
    return HELLO_DOMAIN + _encoder.encode(claim)


def objection(  # each argument is one thing the signature must bind
    envelope: Envelope, spec: Spec, *, cluster: str, node: str, attempt: str, epoch: int, now: int
) -> str | None:
    """Say why a correctly signed envelope does not cover this start here and now, or None."""
    facts: tuple[tuple[str, object, object], ...] = (
        ("another cluster", envelope.cluster, cluster),
        ("another node", envelope.node, node),
        ("another attempt", envelope.attempt, attempt),
        ("another epoch", envelope.epoch, epoch),
        ("another spec", envelope.spec_sha256, spec_sha256(spec)),
    )
    for what, signed, here in facts:
        if signed != here:
            return f"the order is signed for {what}"
    if now > envelope.expires_at:
        return "the order has expired"
    return None
