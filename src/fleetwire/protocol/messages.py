"""Control messages: one JSON text frame each, told apart by `t`.

Unknown fields are ignored (P24); what must not be ignored is signed, and the signature's
canonical bytes know no unknown fields. Clocks are wall time in microseconds since 1970.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec

from fleetwire.core import limits
from fleetwire.core.absences import Life
from fleetwire.core.clones import Step
from fleetwire.core.desired import Observation, Wanted
from fleetwire.core.dispatch import AdminState
from fleetwire.core.envelopes import SignedKey
from fleetwire.core.stops import SignedWord

Nonce: TypeAlias = Annotated[str, msgspec.Meta(min_length=32, max_length=64)]
Name: TypeAlias = Annotated[str, msgspec.Meta(max_length=256)]
IdText: TypeAlias = Annotated[str, msgspec.Meta(min_length=36, max_length=36)]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class Message(msgspec.Struct, frozen=True, tag_field="t", omit_defaults=True):
    """Base of all control messages."""


class Challenge(Message, frozen=True, tag="challenge"):
    """Server, first: prove who you are."""

    versions: tuple[int, ...]
    cluster: Name
    nonce: Nonce
    clock: int
    features: tuple[Name, ...] = ()


class Hello(Message, frozen=True, tag="hello"):
    """Agent, first: who I am, signed over both nonces (core.envelopes.HelloClaim).

    `life` is for people to read and is not part of the claim. `ca` and `step` are part of it where
    both sides know `bound-hello` (core.envelopes.BoundClaim).
    """

    version: int
    node: IdText
    incarnation: Name
    boot_id: Name
    agent_version: Name
    nonce: Nonce
    server_name: Name
    generation: Count
    clock: int
    signature: Annotated[bytes, msgspec.Meta(max_length=64)]
    features: tuple[Name, ...] = ()
    life: Life | None = None
    ca: Name = ""
    step: Step | None = None


class Welcome(Message, frozen=True, tag="welcome"):
    """Server: accepted; these are the terms of this link."""

    link_epoch: Count
    heartbeat_s: float
    lease_s: float
    credit: Count
    clock: int


class ObservedFrame(Message, frozen=True, tag="observed"):
    """Agent: what I have (core.desired.Observed)."""

    revision: Count
    attempts: Annotated[
        tuple[Observation, ...], msgspec.Meta(max_length=limits.OBSERVATIONS_PER_FRAME)
    ] = ()
    complete: bool = False


class DesiredFrame(Message, frozen=True, tag="desired"):
    """Server: what you should have (core.desired.Desired)."""

    revision: Count
    admin: AdminState
    attempts: tuple[Wanted, ...] = ()


class Durable(Message, frozen=True, tag="durable"):
    """Server: log bytes up to `length` are committed. Frees credit."""

    attempt: IdText
    length: Count


class Resend(Message, frozen=True, tag="resend"):
    """Server: its log is `length` long; send from there (a gap, or a damaged log fetched again)."""

    attempt: IdText
    length: Count


class Sealed(Message, frozen=True, tag="sealed"):
    """Server: record and log of these attempts are complete; their spools may go."""

    attempts: tuple[IdText, ...]


class Unknown(Message, frozen=True, tag="unknown"):
    """Server: these ids are not attempts of your node; nothing of them was stored."""

    attempts: tuple[IdText, ...]


class NewKeys(Message, frozen=True, tag="new-keys"):
    """Server, right after the welcome, where both know `new-keys`: which of its keys followed
    which, oldest first, each with the word of the one before it (core.envelopes.learn).
    """

    chain: Annotated[tuple[SignedKey, ...], msgspec.Meta(max_length=limits.SERVER_KEYS)]


class StopsSigned(Message, frozen=True, tag="stops-signed"):
    """Server, before any level, where both know `signed-stops`: it signs its stops, and says so
    with its key (core.stops).
    """

    signed: SignedWord


class StopRefused(Message, frozen=True, tag="stop-refused"):
    """Agent, where both know `signed-stops`: this node was told to stop one of its attempts, by
    whoever, and did not, for `reason`. `at` is when (microseconds).
    """

    attempt: IdText
    epoch: Count
    at: int
    reason: Annotated[str, msgspec.Meta(max_length=limits.REASON_CHARS)]


class Heartbeat(Message, frozen=True, tag="heartbeat"):
    """Agent: alive. `busy` counts its live attempts."""

    sequence: Count
    clock: int
    busy: Count = 0
    load: float = 0.0


class Beat(Message, frozen=True, tag="beat"):
    """Server: heard you. Renews the lease from when that heartbeat was sent."""

    sequence: Count
    clock: int


class Inventory(Message, frozen=True, tag="inventory"):
    """Agent: facts about its machine, as JSON of at most 64 KiB."""

    facts: dict[str, object]


FromServer: TypeAlias = (
    Challenge
    | Welcome
    | NewKeys
    | StopsSigned
    | DesiredFrame
    | Durable
    | Resend
    | Sealed
    | Unknown
    | Beat
)
FromAgent: TypeAlias = Hello | ObservedFrame | StopRefused | Heartbeat | Inventory

# Close codes, 4000-4999 is the application's range (RFC 6455, 7.4.2).
CLOSE_BAD_FRAME: Final = 4400
CLOSE_UNAUTHENTICATED: Final = 4401
CLOSE_FORBIDDEN: Final = 4403
CLOSE_TOO_SLOW: Final = 4408
CLOSE_NEWER_LINK: Final = 4409
CLOSE_TOO_LARGE: Final = 4413
CLOSE_VERSION: Final = 4426
CLOSE_LATER: Final = 4503
