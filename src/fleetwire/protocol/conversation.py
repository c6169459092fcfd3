"""The sans-IO state of one link, for each side.

Usage, on both sides: feed every received frame to `receive`; take the events from
`events_received()` and act on them; write everything from `data_to_send()`; when `close_code`
is set, write what is left and close with it. A protocol error never raises out of `receive`:
it becomes a close code with a reason.

    server                                   agent
      CHALLENGED  -- challenge -->             WAITING
                  <-- hello ---                GREETED
      VERIFYING   (VerifyNeeded; the shell checks the key and the store)
      OPEN        -- welcome -->               OPEN
                  <-- observed*, inventory, heartbeat, log chunks
                  -- desired*, durable, sealed, unknown, beat -->
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final, TypeAlias, TypeVar

import msgspec

from fleetwire.core import limits
from fleetwire.core.absences import Life
from fleetwire.core.clones import Step
from fleetwire.core.desired import Desired, Observation, Observed, Wanted
from fleetwire.core.envelopes import BoundClaim, HelloClaim, SignedKey, hello_bytes
from fleetwire.core.stops import SignedWord
from fleetwire.protocol import codec, messages, versions
from fleetwire.protocol.codec import BadFrame, LogFrame
from fleetwire.protocol.credit import Credit

Frame: TypeAlias = str | bytes
_Item = TypeVar("_Item", Wanted, Observation)

# Room for the frame around a batch of items, well below CONTROL_FRAME_BYTES.
_ENVELOPE_BYTES: Final = 4 * limits.KIB
_encoder = msgspec.json.Encoder()


class Phase(Enum):
    """Where a conversation stands; see the module's drawing."""

    WAITING = auto()
    VERIFYING = auto()
    OPEN = auto()
    CLOSED = auto()


class VerifyNeeded(msgspec.Struct, frozen=True):
    """Server event: check `signature` over `signed` with the node's key, then welcome or close."""

    hello: messages.Hello
    signed: bytes
    signature: bytes


class SignatureNeeded(msgspec.Struct, frozen=True):
    """Agent event: sign `signed` with the node's key and call `greet` with the signature."""

    signed: bytes
    server_clock: int


class Opened(msgspec.Struct, frozen=True):
    """Agent event: the server accepted; these are the terms."""

    welcome: messages.Welcome


class Closed(msgspec.Struct, frozen=True):
    """Either side's event: the conversation ended by our own decision, with this close code."""

    code: int
    reason: str


ServerEvent: TypeAlias = (
    VerifyNeeded
    | Observed
    | messages.StopRefused
    | messages.Heartbeat
    | messages.Inventory
    | LogFrame
    | Closed
)
AgentEvent: TypeAlias = (
    SignatureNeeded
    | Opened
    | Desired
    | messages.NewKeys
    | messages.StopsSigned
    | messages.Durable
    | messages.Resend
    | messages.Sealed
    | messages.Unknown
    | messages.Beat
    | Closed
)


class _Conversation:
    """What both sides share: the outgoing queue, the way to close, and what both know.

    `offered`: the features that this side says it knows; `features`: those that the other side
    knows too, empty until the two have met.
    """

    def __init__(self, offered: tuple[str, ...]) -> None:
        self.phase = Phase.WAITING
        self.features: frozenset[str] = frozenset()
        self._offered = offered
        self.close_code: int | None = None
        self.close_reason = ""
        self._out: list[Frame] = []

    @property
    def is_bound(self) -> bool:
        """Whether both sides sign, or verify, a `BoundClaim`."""
        return versions.BOUND in self.features

    def data_to_send(self) -> list[Frame]:
        """Return the frames to write, in order; each is returned once."""
        out, self._out = self._out, []
        return out

    def close(self, code: int, reason: str) -> None:
        """End the conversation. The first reason stands; the reason is cut to 123 bytes, which
        is what a close frame can carry (RFC 6455, 5.5).
        """
        if self.phase is not Phase.CLOSED:
            self.phase = Phase.CLOSED
            self.close_code = code
            self.close_reason = reason.encode()[:120].decode(errors="ignore")

    def _send(self, message: messages.Message) -> None:
        self._out.append(codec.encode(message))


class ServerConversation(_Conversation):
    """The server's side of one link. With `needs_bound` a hello that is not bound to the server
    that the node dialled (`versions.BOUND`) is refused.
    """

    def __init__(
        self,
        *,
        cluster: str,
        node: str,
        nonce: str,
        clock: int,
        offered: tuple[str, ...] = versions.FEATURES,
        needs_bound: bool = False,
    ) -> None:
        super().__init__(offered)
        self.node = node
        self._needs_bound = needs_bound
        self._cluster = cluster
        self._nonce = nonce
        self._events: list[ServerEvent] = []
        self._send(
            messages.Challenge(
                versions=tuple(range(versions.OLDEST, versions.VERSION + 1)),
                cluster=cluster,
                nonce=nonce,
                clock=clock,
                features=self._offered,
            )
        )

    def events_received(self) -> list[ServerEvent]:
        """Return the events since the last call, in order; each is returned once."""
        events, self._events = self._events, []
        return events

    def receive(self, frame: Frame) -> None:
        """Take one frame. After the conversation has closed, frames are ignored."""
        if self.phase is Phase.CLOSED:
            return
        try:
            if isinstance(frame, str):
                self._take(codec.decode_from_agent(frame))
            elif self.phase is Phase.OPEN:
                self._events.append(codec.decode_log(frame))
            else:
                raise BadFrame("A log chunk came before the hello was accepted.")
        except BadFrame as error:
            self.close(messages.CLOSE_BAD_FRAME, error.detail)
            self._events.append(Closed(messages.CLOSE_BAD_FRAME, error.detail))

    def _take(self, message: messages.FromAgent) -> None:
        if isinstance(message, messages.Hello):
            self._take_hello(message)
        elif self.phase is not Phase.OPEN:
            raise BadFrame(f"A {type(message).__name__} came before the hello was accepted.")
        elif isinstance(message, messages.ObservedFrame):
            self._events.append(Observed(message.revision, message.attempts, message.complete))
        else:
            self._events.append(message)

    def _take_hello(self, hello: messages.Hello) -> None:
        if self.phase is not Phase.WAITING:
            raise BadFrame("A second hello came on the same link.")
        if versions.common_version((hello.version,)) is None:
            reason = (
                f"This server speaks protocol {versions.OLDEST} to {versions.VERSION}, "
                f"the agent {hello.version}."
            )
            self.close(messages.CLOSE_VERSION, reason)
            self._events.append(Closed(messages.CLOSE_VERSION, reason))
            return
        if hello.node != self.node:
            raise BadFrame("The hello names another node than the address it came to.")
        self.features = frozenset(self._offered).intersection(hello.features)
        if self._needs_bound and not self.is_bound:
            self._refuse_unbound("This agent is too old to link over a network: update it.")
            return
        self.phase = Phase.VERIFYING
        claim = HelloClaim(
            cluster=self._cluster,
            node=hello.node,
            server_nonce=self._nonce,
            agent_nonce=hello.nonce,
            server_name=hello.server_name,
            incarnation=hello.incarnation,
            boot_id=hello.boot_id,
            generation=hello.generation,
            version=hello.version,
        )
        if self.is_bound:
            claim = _bound(claim, hello.ca, hello.step, self._offered, hello.features)
        self._events.append(VerifyNeeded(hello, hello_bytes(claim), hello.signature))

    def _refuse_unbound(self, reason: str) -> None:
        self.close(messages.CLOSE_VERSION, reason)
        self._events.append(Closed(messages.CLOSE_VERSION, reason))

    def welcome(self, welcome: messages.Welcome) -> None:
        """Accept the hello: the shell has verified the signature and the store has the link."""
        if self.phase is not Phase.VERIFYING:
            raise AssertionError(f"welcome in phase {self.phase}")
        self.phase = Phase.OPEN
        self._send(welcome)

    def send_keys(self, chain: tuple[SignedKey, ...]) -> None:
        """Tell which keys of the server followed which, where there were any and the agent asks."""
        if chain and versions.ROTATION in self.features:
            self._send(messages.NewKeys(chain))

    @property
    def signs_stops(self) -> bool:
        """Whether the agent is told signed stops, and no others."""
        return versions.SIGNED_STOPS in self.features

    def send_stops_word(self, signed: SignedWord | None) -> None:
        """Say with the server's key that it signs stops, where the agent asks."""
        if signed is not None and self.signs_stops:
            self._send(messages.StopsSigned(signed))

    def send_desired(self, desired: Desired) -> None:
        """Send a level or a delta, split so that no frame passes its limit."""
        for batch in _batches(desired.attempts):
            self._send(messages.DesiredFrame(desired.revision, desired.admin, tuple(batch)))

    def send(
        self,
        message: messages.Durable
        | messages.Resend
        | messages.Sealed
        | messages.Unknown
        | messages.Beat,
    ) -> None:
        """Send one of the small answers."""
        self._send(message)


class AgentConversation(_Conversation):
    """The agent's side of one link. `ca` and `step` are what the hello is bound to; with
    `needs_bound` a server that does not ask for that is refused: over a network nobody may get a
    hello that is good for somebody else.
    """

    def __init__(
        self,
        *,
        node: str,
        cluster: str,
        server_name: str,
        incarnation: str,
        boot_id: str,
        agent_version: str,
        generation: int,
        nonce: str,
        offered: tuple[str, ...] = versions.FEATURES,
        ca: str = "",
        step: Step | None = None,
        needs_bound: bool = False,
    ) -> None:
        super().__init__(offered)
        self._node = node
        self._ca = ca
        self._step = step
        self._needs_bound = needs_bound
        self._cluster = cluster
        self._server_name = server_name
        self._incarnation = incarnation
        self._boot_id = boot_id
        self._agent_version = agent_version
        self._generation = generation
        self._nonce = nonce
        self._version = versions.VERSION
        self._events: list[AgentEvent] = []
        self._greeted = False
        self.credit = Credit(0)

    def events_received(self) -> list[AgentEvent]:
        """Return the events since the last call, in order; each is returned once."""
        events, self._events = self._events, []
        return events

    def receive(self, frame: Frame) -> None:
        """Take one frame. After the conversation has closed, frames are ignored."""
        if self.phase is Phase.CLOSED:
            return
        try:
            if not isinstance(frame, str):
                raise BadFrame("The server sent a binary frame, which this version has not.")
            self._take(codec.decode_from_server(frame))
        except BadFrame as error:
            self.close(messages.CLOSE_BAD_FRAME, error.detail)
            self._events.append(Closed(messages.CLOSE_BAD_FRAME, error.detail))

    def _take(self, message: messages.FromServer) -> None:
        if isinstance(message, messages.Challenge):
            self._take_challenge(message)
        elif isinstance(message, messages.Welcome):
            if self.phase is not Phase.VERIFYING or not self._greeted:
                raise BadFrame("A welcome came without our hello.")
            self.phase = Phase.OPEN
            self.credit = Credit(min(message.credit, limits.CREDIT_BYTES))
            self._events.append(Opened(message))
        elif self.phase is not Phase.OPEN:
            raise BadFrame(f"A {type(message).__name__} came before the welcome.")
        else:
            self._take_open(message)

    def _take_open(
        self,
        message: messages.DesiredFrame
        | messages.NewKeys
        | messages.StopsSigned
        | messages.Durable
        | messages.Resend
        | messages.Sealed
        | messages.Unknown
        | messages.Beat,
    ) -> None:
        match message:
            case messages.DesiredFrame():
                for wanted in message.attempts:
                    # The first word about an attempt on this link says where to send from;
                    # later ones are levels of wishes, and `durable` carries the lengths.
                    if self.credit.position(wanted.attempt) is None:
                        self.credit.rewind(wanted.attempt, wanted.have)
                self._events.append(Desired(message.revision, message.admin, message.attempts))
                return
            case messages.Durable():
                self.credit.acknowledged(message.attempt, message.length)
            case messages.Resend():
                self.credit.rewind(message.attempt, message.length)
            case messages.Sealed() | messages.Unknown():
                for attempt in message.attempts:
                    self.credit.forget(attempt)
            case messages.Beat() | messages.NewKeys() | messages.StopsSigned():
                pass
        self._events.append(message)

    def _take_challenge(self, challenge: messages.Challenge) -> None:
        if self.phase is not Phase.WAITING:
            raise BadFrame("A second challenge came on the same link.")
        version = versions.common_version(challenge.versions)
        if version is None:
            reason = f"The server speaks protocols {challenge.versions}, we {versions.VERSION}."
            self.close(messages.CLOSE_VERSION, reason)
            self._events.append(Closed(messages.CLOSE_VERSION, reason))
            return
        if challenge.cluster != self._cluster:
            reason = "The server is of another cluster than the one this node enrolled in."
            self.close(messages.CLOSE_UNAUTHENTICATED, reason)
            self._events.append(Closed(messages.CLOSE_UNAUTHENTICATED, reason))
            return
        self._version = version
        self.features = frozenset(self._offered).intersection(challenge.features)
        if self._needs_bound and not self.is_bound:
            reason = "The server is too old to be linked to over a network: update it."
            self.close(messages.CLOSE_VERSION, reason)
            self._events.append(Closed(messages.CLOSE_VERSION, reason))
            return
        self.phase = Phase.VERIFYING
        claim = HelloClaim(
            cluster=self._cluster,
            node=self._node,
            server_nonce=challenge.nonce,
            agent_nonce=self._nonce,
            server_name=self._server_name,
            incarnation=self._incarnation,
            boot_id=self._boot_id,
            generation=self._generation,
            version=version,
        )
        if self.is_bound:
            claim = _bound(claim, self._ca, self._step, challenge.features, self._offered)
        self._events.append(SignatureNeeded(hello_bytes(claim), challenge.clock))

    def greet(self, signature: bytes, *, clock: int, life: Life | None = None) -> None:
        """Answer the challenge with the signature that `SignatureNeeded` asked for."""
        if self.phase is not Phase.VERIFYING or self._greeted:
            raise AssertionError(f"greet in phase {self.phase}")
        self._greeted = True
        self._send(
            messages.Hello(
                version=self._version,
                node=self._node,
                incarnation=self._incarnation,
                boot_id=self._boot_id,
                agent_version=self._agent_version,
                nonce=self._nonce,
                server_name=self._server_name,
                generation=self._generation,
                clock=clock,
                signature=signature,
                features=self._offered,
                life=life,
                ca=self._ca if self.is_bound else "",
                step=self._step if self.is_bound else None,
            )
        )

    def send_observed(self, observed: Observed) -> None:
        """Send a level or a delta; only the last frame of a complete report says so."""
        batches = _batches(observed.attempts)
        for number, batch in enumerate(batches, 1):
            self._send(
                messages.ObservedFrame(
                    observed.revision,
                    tuple(batch),
                    complete=observed.complete and number == len(batches),
                )
            )

    @property
    def tells_refusals(self) -> bool:
        """Whether the server can be told of stops that were refused."""
        return versions.SIGNED_STOPS in self.features

    def send_refusal(self, refusal: messages.StopRefused) -> None:
        """Say that a stop was not carried out."""
        self._send(refusal)

    def send_heartbeat(self, heartbeat: messages.Heartbeat) -> None:
        """Say that the agent is alive."""
        self._send(heartbeat)

    def send_inventory(self, facts: dict[str, object]) -> None:
        """Send facts about the machine."""
        self._send(messages.Inventory(facts))

    def send_log(self, attempt: str, offset: int, end: int, raw_length: int, body: bytes) -> None:
        """Send a chunk of the log from `offset` to `end`, its body compressed where `features`
        has zstd. The caller keeps to `credit.free` and sends each attempt's bytes in order.
        """
        if self.credit.position(attempt) != offset:
            raise AssertionError(f"log bytes of {attempt} sent out of order at {offset}")
        self.credit.sent(attempt, end)
        zstd = versions.ZSTD in self.features
        self._out.append(codec.encode_log(attempt, offset, raw_length, body, zstd=zstd))


def _bound(
    claim: HelloClaim,
    ca: str,
    step: Step | None,
    offered: tuple[str, ...],
    asked: tuple[str, ...],
) -> BoundClaim:
    """Bind a claim: `offered` are the server's features, `asked` the agent's."""
    return BoundClaim(
        **msgspec.structs.asdict(claim), ca=ca, step=step, offered=offered, asked=asked
    )


def _batches(items: tuple[_Item, ...]) -> list[list[_Item]]:
    """Split so that each batch's JSON stays below the frame limit; no items are one batch."""
    if len(items) <= 1:
        return [list(items)]  # as it is: nearly always, and encoding it twice costs as much again
    batches: list[list[_Item]] = [[]]
    size = 0
    for item in items:
        length = len(_encoder.encode(item)) + 1
        full = size + length > limits.CONTROL_FRAME_BYTES - _ENVELOPE_BYTES
        if batches[-1] and (full or len(batches[-1]) >= limits.OBSERVATIONS_PER_FRAME):
            batches.append([])
            size = 0
        batches[-1].append(item)
        size += length
    return batches
