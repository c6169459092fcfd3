"""Canonical bytes: exactly what is signed, by whom, for whom.

Every kind of signed thing starts with its own domain line, so that a signature over one kind
can never pass for another. The rest is JSON with sorted keys, no spaces, integers only where
a float could be written two ways.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import msgspec

from fleetwire.core.clones import Step
from fleetwire.core.secrets import sealed_sha256
from fleetwire.core.specs import Spec, secrets_of

ORDER_DOMAIN: Final = b"fleetwire order 1\n"
KEY_DOMAIN: Final = b"fleetwire server key 1\n"
HELLO_DOMAIN: Final = b"fleetwire hello 1\n"
BOUND_HELLO_DOMAIN: Final = b"fleetwire hello 2\n"


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
    # Of what is sealed for the node. Not said where there is nothing: an agent that does not know
    # it takes such orders as ever, and refuses others, because their signature does not fit.
    secrets_sha256: str | msgspec.UnsetType = msgspec.UNSET


class NewKey(msgspec.Struct, frozen=True):
    """What a server's key says of the one that follows it: `id` and the 32 bytes of `key` sign
    orders from `issued_at` on (microseconds since 1970), beside `signed_by`, which said so.
    """

    cluster: str
    id: str
    key: bytes
    signed_by: str
    issued_at: int


class SignedKey(msgspec.Struct, frozen=True):
    """A new key with the word of the one before it."""

    new: NewKey
    signature: bytes


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


class BoundClaim(HelloClaim, frozen=True):
    """A claim that is bound to more: `ca`, the fingerprint of the one CA that the node trusts (""
    where it trusts those that its machine knows, or dials this machine without TLS), the step of
    core.clones, and what both sides offered, so that nobody in between can make them less.
    """

    ca: str
    step: Step | None
    offered: tuple[str, ...]
    asked: tuple[str, ...]


_encoder = msgspec.json.Encoder(order="sorted")


def spec_sha256(spec: Spec) -> str:
    """Return the hash that binds a spec to its envelope."""
    return hashlib.sha256(_encoder.encode(spec)).hexdigest()


def order_bytes(envelope: Envelope) -> bytes:
    """Return the bytes that the server signs for an order."""
    return ORDER_DOMAIN + _encoder.encode(envelope)


def key_bytes(new: NewKey) -> bytes:
    """Return the bytes that a server's key signs for the one that follows it."""
    return KEY_DOMAIN + _encoder.encode(new)


def learn(
    known: Mapping[str, bytes],
    chain: Sequence[SignedKey],
    *,
    cluster: str,
    verifies: Callable[[bytes, bytes, bytes], bool],
) -> dict[str, bytes]:
    """Return the keys that may sign orders for a node, the newest last, once it has heard this
    chain. `known` is in that order as well; `verifies` takes a key, bytes and a signature.

    Only the newest key can name another, and from then on these two count: so what was signed
    before a rotation still holds, and a key that was stolen is worth nothing after the second.
    """
    keys = dict(known)
    for one in chain:
        new = one.new
        newest = next(reversed(keys), None)
        if newest is None or new.signed_by != newest or new.id in keys or new.cluster != cluster:
            continue
        if len(new.key) == 32 and verifies(keys[newest], key_bytes(new), one.signature):
            keys = {newest: keys[newest], new.id: new.key}
    return keys


def hello_bytes(claim: HelloClaim) -> bytes:
    """Return the bytes that a node signs to connect."""
    domain = BOUND_HELLO_DOMAIN if isinstance(claim, BoundClaim) else HELLO_DOMAIN
    return domain + _encoder.encode(claim)


def hello_objection(
    server_name: str, ca: str, *, names: Collection[str] | None, our_ca: str | None
) -> str | None:
    """Say why a hello was made for another server than this one, or None: then somebody has passed
    on our challenge to a node that meant to talk to him.

    `server_name` is HOST or HOST:PORT, as the node dialled it; the port may be another one's that
    leads here. `names` are the hosts that this server is reached by, None where it does not know.
    """
    host, colon, port = server_name.lower().rpartition(":")
    if not (colon and port.isdigit()):
        host = server_name.lower()
    if names is not None and host not in names:
        return f"The hello was made for {server_name[:60]!r}, no name of this server."
    # A node that goes by the CAs of its machine has none to name, and the name is what they prove.
    if our_ca is not None and ca not in {"", our_ca}:
        return "The hello was made for a server with another CA than ours."
    return None


def objection(  # each argument is one thing the signature must bind
    envelope: Envelope,
    spec: Spec,
    *,
    cluster: str,
    node: str,
    attempt: str,
    epoch: int,
    now: int,
    secrets: bytes = b"",
) -> str | None:
    """Say why a correctly signed envelope does not cover this start here and now, or None."""
    facts: tuple[tuple[str, object, object], ...] = (
        ("another cluster", envelope.cluster, cluster),
        ("another node", envelope.node, node),
        ("another attempt", envelope.attempt, attempt),
        ("another epoch", envelope.epoch, epoch),
        ("another spec", envelope.spec_sha256, spec_sha256(spec)),
        (
            "other secrets",
            envelope.secrets_sha256,
            sealed_sha256(secrets) if secrets else msgspec.UNSET,
        ),
    )
    for what, signed, here in facts:
        if signed != here:
            return f"the order is signed for {what}"
    if bool(secrets_of(spec)) != bool(secrets):
        return "the order's secrets are not those that its spec names"
    if now > envelope.expires_at:
        return "the order has expired"
    return None
