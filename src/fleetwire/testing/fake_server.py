"""A server in one object: the real protocol on a real socket, everything else in memory.

It fakes the other side of the wire, not our own library: what an agent does against it, it does
against the real one. A test scripts the level (`want`, `stop`, `forget`, `set_admin`), and then
looks at `attempts`. Misbehaviour is data: see `Manners`. Stopping and starting it again keeps
what it has, as a real server's restart does.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import time
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
import zstandard
from nacl import bindings, exceptions
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from fleetwire.core import chunks, limits
from fleetwire.core.desired import Desired, Observation, Observed, Order, Wanted
from fleetwire.core.dispatch import AdminState
from fleetwire.core.envelopes import Envelope, order_bytes, spec_sha256
from fleetwire.core.happenings import Declined, Exited, Happening, Lost, NeverStarted, Started
from fleetwire.core.ids import make_id
from fleetwire.core.leases import next_epoch
from fleetwire.core.secrets import Content, Given, sealed_sha256, write_content
from fleetwire.core.specs import Spec, kind_of, secrets_of
from fleetwire.core.stops import (
    SignedWord,
    StopEnvelope,
    StopOrder,
    StopsWord,
    in_ms,
    stop_bytes,
    word_bytes,
)
from fleetwire.protocol import codec, messages
from fleetwire.protocol.codec import LogFrame
from fleetwire.protocol.conversation import Closed, Phase, ServerConversation, VerifyNeeded
from fleetwire.protocol.versions import FEATURES, SIGNED_STOPS, SUBPROTOCOL, ZSTD

CLUSTER: Final = "test-cluster"
KEY_ID: Final = "server-key-1"


class Manners(msgspec.Struct):
    """How the server behaves; change it at any time. `refuse`: close every hello with this code
    and reason. `acknowledge`: say `durable`. `seal`: say `sealed`. `answer_beats`: say `beat`.
    `features`: what the challenge lists.
    """

    heartbeat_s: float = limits.HEARTBEAT_S
    lease_s: float = limits.LEASE_S
    credit: int = limits.CREDIT_BYTES
    refuse: tuple[int, str] | None = None
    acknowledge: bool = True
    seal: bool = True
    answer_beats: bool = True
    features: tuple[str, ...] = FEATURES


class FakeNode(msgspec.Struct, kw_only=True):
    """An enrolled node: its key, its level, and what it said. `links` counts its welcomes."""

    id: str
    key: bytes
    sealing_key: bytes = b""
    admin: AdminState = "active"
    revision: int = 0
    confirmed: int = 0
    links: int = 0
    hellos: list[messages.Hello] = []
    complete: list[Observed] = []
    inventory: dict[str, object] = {}
    refused: list[messages.StopRefused] = []
    beats: int = 0


class FakeAttempt(msgspec.Struct, kw_only=True):
    """An attempt, what the node said of it, and its log. `length` counts dropped bytes too."""

    id: str
    node: str
    epoch: int
    wish: str = "run"
    grace: float | None = None
    order: Order | None = None
    story: list[tuple[int, Happening]] = []
    length: int = 0
    log: bytearray = msgspec.field(default_factory=bytearray)
    streams: dict[int, int] = {}
    sealed: bool = False
    node_length: int = 0
    node_begins: int = 0

    def happened(self, kind: type[Happening]) -> list[Happening]:
        """Return what the node said of that kind, in order."""
        return [happening for _, happening in self.story if isinstance(happening, kind)]

    @property
    def exit(self) -> Exited | None:
        """How it ended, None while that is not known."""
        return next((h for _, h in self.story if isinstance(h, Exited)), None)

    @property
    def final(self) -> bool:
        """Whether nothing more can happen in this epoch."""
        return any(
            isinstance(h, Exited | Lost | NeverStarted | Declined)
            for epoch, h in self.story
            if epoch == self.epoch
        )


class FakeServer:
    """See the module. Everything runs on the loop that `start` was called on."""

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.manners = Manners()
        self.nodes: dict[str, FakeNode] = {}
        self.attempts: dict[str, FakeAttempt] = {}
        self.frames: list[str] = []  # kinds of what came, in order: messages' tags and "log"
        self.problems: list[str] = []  # what a real server would have alarmed about
        self.host = host
        self.port = port
        self._counter = 0
        self._links: dict[str, tuple[ServerConnection, ServerConversation]] = {}
        self._changed = asyncio.Event()
        self._server: Server | None = None
        self._seed = os.urandom(32)
        self._public, self._secret = bindings.crypto_sign_seed_keypair(self._seed)
        self._unzstd = zstandard.ZstdDecompressor()

    # Its life.

    async def start(self) -> None:
        """Listen; the second time on the same port."""
        self._server = await serve(
            self._serve,
            self.host,
            self.port,
            compression=None,
            ping_interval=None,
            max_size=chunks.BODY_MAX + codec.HEADER.size + limits.KIB,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            close_timeout=0.5,
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]

    async def stop(self) -> None:
        """Drop all links and stop listening; what is known is kept."""
        if self._server is not None:
            for connection, _ in list(self._links.values()):
                connection.transport.abort()
            self._server.close(close_connections=True)
            await self._server.wait_closed()
            self._server = None

    @property
    def signs(self) -> bool:
        """Whether it signs its stops."""
        return SIGNED_STOPS in self.manners.features

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self.host}:{self.port}"

    # What a test says.

    def enrol(self, key: bytes, sealing_key: bytes = b"") -> FakeNode:
        """Take in a node with this Ed25519 key, and the X25519 key that secrets are sealed to."""
        node = FakeNode(id=new_id(), key=key, sealing_key=sealing_key)
        self.nodes[node.id] = node
        return node

    def server_keys(self) -> dict[str, bytes]:
        """Return the keys that may sign orders, as an identity holds them."""
        return {KEY_ID: self._public}

    def want(
        self,
        node: FakeNode,
        spec: Spec,
        *,
        attempt: str | None = None,
        generation: int = 1,
        secrets: Mapping[str, bytes] | None = None,
    ) -> FakeAttempt:
        """Assign an attempt to the node, with the next epoch, and offer it. `secrets`: the values
        of those that the spec names.
        """
        self._counter += 1
        epoch = next_epoch(generation, self._counter)
        wanted = self.attempts.get(attempt or "")
        if wanted is None:
            wanted = FakeAttempt(id=attempt or new_id(), node=node.id, epoch=epoch)
            self.attempts[wanted.id] = wanted
        wanted.epoch = epoch
        wanted.wish = "run"
        sealed = self.seal(node, wanted, spec, secrets or {}) if secrets_of(spec) else b""
        wanted.order = self.sign(node, wanted, spec, sealed=sealed)
        self.send_desired(node, wanted)
        return wanted

    @staticmethod
    def seal(
        node: FakeNode, attempt: FakeAttempt, spec: Spec, values: Mapping[str, bytes]
    ) -> bytes:
        """Return the values of the secrets that a spec names, sealed for the node."""
        given = [Given(use.name, use.as_, use.to, values[use.name]) for use in secrets_of(spec)]
        content = write_content(Content(attempt.id, attempt.epoch, tuple(given)))
        return bindings.crypto_box_seal(content, node.sealing_key)

    def sign(
        self,
        node: FakeNode,
        attempt: FakeAttempt,
        spec: Spec,
        *,
        expires_in_s: float = 3600.0,
        sealed: bytes = b"",
    ) -> Order:
        """Return the signed order of an attempt."""
        # As it comes out of a database or off the wire: 7200 has become 7200.0, and that counts.
        spec = msgspec.json.decode(msgspec.json.encode(spec), type=Spec)
        now = now_us()
        envelope = Envelope(
            cluster=CLUSTER,
            node=node.id,
            run=new_id(),
            attempt=attempt.id,
            epoch=attempt.epoch,
            kind=kind_of(spec),
            spec_sha256=spec_sha256(spec),
            issued_at=now,
            expires_at=now + int(expires_in_s * 1_000_000),
            secrets_sha256=sealed_sha256(sealed) if sealed else msgspec.UNSET,
        )
        signature = bindings.crypto_sign(order_bytes(envelope), self._secret)[:64]
        return Order(spec, envelope, KEY_ID, signature, sealed)

    def sign_stop(self, attempt: FakeAttempt, *, grace: float | None) -> StopOrder:
        """Return the signed stop of an attempt."""
        envelope = StopEnvelope(
            cluster=CLUSTER,
            node=attempt.node,
            run=attempt.order.envelope.run if attempt.order is not None else new_id(),
            attempt=attempt.id,
            epoch=attempt.epoch,
            grace_ms=in_ms(grace),
            issued_at=now_us(),
        )
        signature = bindings.crypto_sign(stop_bytes(envelope), self._secret)[:64]
        return StopOrder(envelope, KEY_ID, signature)

    def word(self) -> SignedWord:
        """Return the word that stops are signed."""
        said = StopsWord(CLUSTER, now_us())
        return SignedWord(said, KEY_ID, bindings.crypto_sign(word_bytes(said), self._secret)[:64])

    def stop_attempt(self, attempt: FakeAttempt, *, grace: float | None = None) -> None:
        """Wish it stopped."""
        attempt.wish, attempt.grace = "stop", grace
        self.send_desired(self.nodes[attempt.node], attempt)

    def forget(self, attempt: FakeAttempt) -> None:
        """Let its folder go."""
        attempt.wish = "forget"
        self.send_desired(self.nodes[attempt.node], attempt)

    def set_admin(self, node: FakeNode, admin: AdminState) -> int:
        """Decide about the node; returns the revision that will confirm it."""
        node.admin = admin
        self.send_desired(node)
        return node.revision

    def send_desired(self, node: FakeNode, *attempts: FakeAttempt) -> None:
        """Send a delta of the level, if the node is connected."""
        node.revision += 1
        wanted = tuple(self._wanted(attempt) for attempt in attempts)
        self._converse(
            node.id, lambda c: c.send_desired(Desired(node.revision, node.admin, wanted))
        )

    def send(
        self,
        node: FakeNode,
        message: messages.Durable
        | messages.Resend
        | messages.Sealed
        | messages.Unknown
        | messages.Beat,
    ) -> None:
        """Send one message, if the node is connected."""
        self._converse(node.id, lambda c: c.send(message))

    def send_raw(self, node: FakeNode, frame: str | bytes) -> None:
        """Send a frame that no server of ours would."""
        link = self._links.get(node.id)
        if link is not None:
            self._put(link[0], [frame])

    def reset_log(self, attempt: FakeAttempt) -> None:
        """Lose the log and fetch it again."""
        attempt.length, attempt.log, attempt.streams = 0, bytearray(), {}
        self.send(self.nodes[attempt.node], messages.Resend(attempt.id, 0))

    def connected(self, node: FakeNode) -> bool:
        """Say whether the node has an open link."""
        return node.id in self._links

    async def drop(self, node: FakeNode) -> None:
        """Break the node's link without a word."""
        if node.id in self._links:
            self._links[node.id][0].transport.abort()

    async def wait(self, until: Callable[[], object], *, timeout_s: float = 20.0) -> None:
        """Return once the predicate holds; it is asked after everything that comes."""
        try:
            async with asyncio.timeout(timeout_s):
                while not until():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(self._despair(until)) from None

    # What agents say.

    async def _serve(self, connection: ServerConnection) -> None:
        node_id = (connection.request.path if connection.request else "").rpartition("/")[2]
        conversation = ServerConversation(
            cluster=CLUSTER,
            node=node_id,
            nonce=os.urandom(16).hex(),
            clock=now_us(),
            offered=self.manners.features,
        )
        try:
            await self._write(connection, conversation)
            async for frame in connection:
                conversation.receive(frame)
                for event in conversation.events_received():
                    self._take(node_id, connection, conversation, event)
                await self._write(connection, conversation)
                self._changed.set()
                if conversation.phase is Phase.CLOSED:
                    await connection.close(
                        conversation.close_code or 1000, conversation.close_reason
                    )
        except ConnectionClosed:
            return  # links break; the next one starts from the level
        finally:
            if self._links.get(node_id, (None, None))[0] is connection:
                del self._links[node_id]
            self._changed.set()

    def _take(
        self,
        node_id: str,
        connection: ServerConnection,
        conversation: ServerConversation,
        event: object,
    ) -> None:
        match event:
            case VerifyNeeded():
                self.frames.append("hello")
                self._greet(node_id, connection, conversation, event)
            case Observed():
                self.frames.append("observed")
                self._observed(self.nodes[node_id], conversation, event)
            case LogFrame():
                self.frames.append("log")
                self._append(node_id, conversation, event)
            case messages.Heartbeat():
                self.frames.append("heartbeat")
                self.nodes[node_id].beats += 1
                if self.manners.answer_beats:
                    conversation.send(messages.Beat(event.sequence, now_us()))
            case messages.StopRefused():
                self.frames.append("stop-refused")
                self.nodes[node_id].refused.append(event)
            case messages.Inventory():
                self.frames.append("inventory")
                self.nodes[node_id].inventory = event.facts
            case Closed():
                self.problems.append(f"closed with {event.code}: {event.reason}")
            case _:
                raise AssertionError(f"an event nobody expects: {event}")

    def _greet(
        self,
        node_id: str,
        connection: ServerConnection,
        conversation: ServerConversation,
        event: VerifyNeeded,
    ) -> None:
        if self.manners.refuse is not None:
            conversation.close(*self.manners.refuse)
            return
        node = self.nodes.get(node_id)
        if node is None or not _verifies(node.key, event.signed, event.signature):
            conversation.close(messages.CLOSE_UNAUTHENTICATED, "unknown node or wrong signature")
            return
        node.hellos.append(event.hello)
        node.links += 1
        older = self._links.pop(node_id, None)
        if older is not None:
            older[0].transport.abort()
        self._links[node_id] = (connection, conversation)
        conversation.welcome(
            messages.Welcome(
                link_epoch=node.links,
                heartbeat_s=self.manners.heartbeat_s,
                lease_s=self.manners.lease_s,
                credit=self.manners.credit,
                clock=now_us(),
            )
        )
        conversation.send_stops_word(self.word())

    def _observed(
        self, node: FakeNode, conversation: ServerConversation, observed: Observed
    ) -> None:
        node.confirmed = observed.revision
        for observation in observed.attempts:
            self._observe(conversation, observation)
        if observed.complete:
            node.complete.append(observed)
            node.revision += 1
            level = [
                attempt
                for attempt in self.attempts.values()
                if attempt.node == node.id and not attempt.sealed
            ]
            wanted = tuple(self._wanted(attempt) for attempt in level)
            conversation.send_desired(Desired(node.revision, node.admin, wanted))

    def _observe(self, conversation: ServerConversation, observation: Observation) -> None:
        attempt = self.attempts.get(observation.attempt)
        if attempt is None:
            conversation.send(messages.Unknown((observation.attempt,)))
            return
        attempt.node_length = max(attempt.node_length, observation.length)
        attempt.node_begins = max(attempt.node_begins, observation.begins)
        for happening in observation.happenings:
            if (observation.epoch, happening) not in attempt.story:
                attempt.story.append((observation.epoch, happening))
        self._seal(conversation, attempt)

    def _append(self, node_id: str, conversation: ServerConversation, frame: LogFrame) -> None:
        attempt = self.attempts.get(frame.attempt)
        if attempt is None or attempt.node != node_id:
            conversation.send(messages.Unknown((frame.attempt,)))
            return
        if frame.offset > attempt.length:
            conversation.send(messages.Resend(attempt.id, attempt.length))
            return
        body = bytes(frame.body)
        if frame.zstd and ZSTD not in self.manners.features:
            self.problems.append("a compressed chunk, where that was not offered")
        if frame.zstd:
            body = self._unzstd.decompress(body, max_output_size=chunks.BODY_MAX)
        if len(body) != frame.raw_length:
            self.problems.append(f"a chunk says {frame.raw_length} and has {len(body)} bytes")
        pieces, payload = chunks.decode(body)
        skip = attempt.length - frame.offset
        at = 0
        for piece in pieces:
            part = (
                memoryview(b"") if piece.stream == chunks.GAP else payload[at : at + piece.length]
            )
            at += len(part)
            cut = min(skip, piece.length)
            skip -= cut
            attempt.log += part[cut:]
            attempt.length += piece.length - cut
            seen = attempt.streams.get(piece.stream, 0)
            attempt.streams[piece.stream] = seen + piece.length - cut
        if self.manners.acknowledge:
            conversation.send(messages.Durable(attempt.id, attempt.length))
        self._seal(conversation, attempt)

    def _seal(self, conversation: ServerConversation, attempt: FakeAttempt) -> None:
        if attempt.sealed or not self.manners.seal:
            return
        exited = attempt.exit
        if exited is not None and attempt.length == exited.length:
            if hashlib.sha256(attempt.log).hexdigest() != exited.sha256:
                self.problems.append(f"the log of {attempt.id} is damaged")
                return
        elif (
            exited is not None or not attempt.happened(Lost) or attempt.length < attempt.node_length
        ):
            return
        attempt.sealed = True
        conversation.send(messages.Sealed((attempt.id,)))

    def _wanted(self, attempt: FakeAttempt) -> Wanted:
        begun = attempt.happened(Started) or attempt.final
        return Wanted(
            attempt.id,
            attempt.epoch,
            "forget" if attempt.wish == "forget" else "stop" if attempt.wish == "stop" else "run",
            have=attempt.length,
            grace=attempt.grace,
            order=None if begun or attempt.wish != "run" else attempt.order,
            stop=self.sign_stop(attempt, grace=attempt.grace)
            if attempt.wish == "stop" and self.signs
            else None,
        )

    def _converse(self, node_id: str, say: Callable[[ServerConversation], None]) -> None:
        link = self._links.get(node_id)
        if link is None:
            return
        connection, conversation = link
        if conversation.phase is not Phase.OPEN:
            return
        say(conversation)
        self._put(connection, conversation.data_to_send())

    def _put(self, connection: ServerConnection, frames: list[str | bytes]) -> None:
        # A link's frames are written by whoever made them; the transport keeps their order.
        for frame in frames:
            if isinstance(frame, str):
                connection.protocol.send_text(frame.encode())
            else:
                connection.protocol.send_binary(frame)
        for data in connection.protocol.data_to_send():
            connection.transport.write(data)

    async def _write(self, connection: ServerConnection, conversation: ServerConversation) -> None:
        for frame in conversation.data_to_send():
            await connection.send(frame)

    def _despair(self, until: Callable[[], object]) -> str:
        attempts = "\n".join(
            f"  {a.id} epoch {a.epoch} wish {a.wish} length {a.length} sealed {a.sealed} {a.story}"
            for a in [a for a in self.attempts.values() if not a.sealed][:20]
        )
        return (
            f"waited in vain for {until}; {len(self._links)} links; last frames "
            f"{self.frames[-20:]}; problems {self.problems}; unsealed attempts:\n{attempts}"
        )


def now_us() -> int:
    """Return microseconds since 1970."""
    return time.time_ns() // 1000


def new_id() -> str:
    """Return a new id."""
    return make_id(now_us(), os.urandom(10))


def base64_of(data: bytes) -> str:
    """Return the text form of bytes in JSON."""
    return base64.b64encode(data).decode("ascii")


def _verifies(key: bytes, signed: bytes, signature: bytes) -> bool:
    try:
        bindings.crypto_sign_open(signature + signed, key)
    except (exceptions.BadSignatureError, ValueError):
        return False
    return True
