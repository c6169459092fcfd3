"""FakeNode: a node without processes, speaking the real protocol on a real socket.

It plays Scripted specs in no time (or in theirs), keeps a spool in memory, and does what a node
must do: it starts an (attempt, epoch) at most once, tells everything again on each link until
it is sealed, and keeps what Desired does not mention. Light enough for thousands in a process.

Misbehaviour is data: a script for what to do with each order (`Behaviour`), and methods that
send what a real agent never would.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import msgspec
import zstandard
from nacl.exceptions import CryptoError
from nacl.signing import SigningKey, VerifyKey
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from fleetwire.core import chunks
from fleetwire.core.absences import Life
from fleetwire.core.chunks import Piece
from fleetwire.core.desired import Desired, Observation, Observed, Wanted
from fleetwire.core.happenings import (
    Declined,
    Exited,
    Happening,
    NeverStarted,
    Started,
)
from fleetwire.core.leases import generation_of
from fleetwire.core.specs import Script, Scripted, Spec, Step
from fleetwire.core.stops import stop_bytes, stop_objection
from fleetwire.protocol import messages
from fleetwire.protocol.conversation import (
    AgentConversation,
    Closed,
    Opened,
    SignatureNeeded,
)
from fleetwire.protocol.versions import FEATURES, SUBPROTOCOL, ZSTD

CHUNK_BYTES: Final = 256 * 1024
_compress = zstandard.ZstdCompressor(level=1).compress


class Identity(NamedTuple):
    """What a node keeps of its enrolment, and its key."""

    node: str
    cluster: str
    key: SigningKey
    incarnation: str


class Behaviour(msgspec.Struct, frozen=True):
    """How this node treats orders. `hold`: start, but do not end before `release`. `late`: play
    sleeps in real time. `decline`: refuse with this reason. `chunk`: bytes of a log frame.
    `features`: what its hello lists, as an older or a newer agent would.
    """

    hold: bool = False
    late: bool = False
    decline: str | None = None
    decline_final: bool = False
    silent: bool = False
    chunk: int = CHUNK_BYTES
    features: tuple[str, ...] = FEATURES


class FakeAttempt:
    """An attempt in the spool of a fake node."""

    def __init__(self, attempt: str, epoch: int) -> None:
        self.attempt = attempt
        self.epoch = epoch
        self.happenings: list[Happening] = []
        self.log = bytearray()
        self.streams: list[Piece] = []
        self.stopped = asyncio.Event()
        self.released = asyncio.Event()

    @property
    def ended(self) -> bool:
        """Whether its last word is said."""
        return bool(self.happenings) and not isinstance(self.happenings[-1], Started)

    def write(self, data: bytes, stream: int, at: int) -> None:
        """Add output."""
        self.log += data
        self.streams.append(Piece(stream, len(data), at))

    def observation(self) -> Observation:
        """Return what the node says of it."""
        return Observation(self.attempt, self.epoch, tuple(self.happenings), len(self.log))


class FakeNode:
    """See the module. `clock` is microseconds since 1970. `boot_id` and `life` are what the next
    hello says of its machine and agent.
    """

    def __init__(
        self,
        url: str,
        identity: Identity,
        *,
        clock: Callable[[], int],
        nonce: Callable[[], str],
        behaviour: Behaviour | None = None,
        server_key: bytes | None = None,
    ) -> None:
        self.url = f"{url}/ws/agent/{identity.node}"
        self.identity = identity
        self.behaviour = behaviour or Behaviour()
        self.spool: dict[str, FakeAttempt] = {}
        self.starts: list[tuple[str, int]] = []
        self.generation = 0
        self.revision = 0
        self.admin = "active"
        self.received: list[Any] = []
        self.opened = asyncio.Event()
        self.closed: tuple[int, str] | None = None
        self.beats = 0
        self.unknown: list[str] = []
        self.refused: list[tuple[str, str]] = []
        self.boot_id = "boot"
        self.life: Life | None = None
        self._server_key = server_key
        self._clock = clock
        self._nonce = nonce
        self._socket: ClientConnection | None = None
        self._conversation: AgentConversation | None = None
        self._group: asyncio.TaskGroup | None = None
        self._changed = asyncio.Condition()
        self._wake = asyncio.Event()
        self._unsaid: dict[str, FakeAttempt] = {}
        self._playing: set[asyncio.Task[None]] = set()

    # -- its life ----------------------------------------------------------------------------

    async def run_once(self) -> None:
        """Connect and serve one link until it closes."""
        identity = self.identity
        self.closed = None
        async with connect(
            self.url,
            subprotocols=[SUBPROTOCOL],  # type: ignore[list-item]
            compression=None,
            max_size=2 * 1024 * 1024,
            ping_interval=None,
            open_timeout=30,
            proxy=None,
        ) as socket:
            self._socket = socket
            self._conversation = AgentConversation(
                node=identity.node,
                cluster=identity.cluster,
                server_name="localhost",
                incarnation=identity.incarnation,
                boot_id=self.boot_id,
                agent_version="fake",
                generation=self.generation,
                nonce=self._nonce(),
                offered=self.behaviour.features,
            )
            try:
                async with asyncio.TaskGroup() as group:
                    self._group = group
                    writing = group.create_task(self._write())
                    try:
                        async for frame in socket:
                            self._receive(frame)
                    except ConnectionClosed:
                        pass
                    finally:
                        writing.cancel()
                        for playing in list(self._playing):
                            playing.cancel()
            finally:
                self._group = None
                self.opened.clear()
                self.closed = (socket.close_code or 1006, socket.close_reason or "")
                await self._announce()

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[FakeNode]:
        """Be connected while the context is entered."""
        async with asyncio.TaskGroup() as group:
            running = group.create_task(self.run_once())
            async with asyncio.timeout(10):
                await self.wait(lambda: self.opened.is_set() or running.done())
            try:
                yield self
            finally:
                running.cancel()

    async def wait(self, predicate: Callable[[], bool], timeout: float = 10.0) -> None:  # noqa: ASYNC109 - tests read it so
        """Wait until the predicate holds; it is looked at whenever something happens here."""
        async with asyncio.timeout(timeout), self._changed:
            await self._changed.wait_for(predicate)

    def heartbeat(self, sequence: int = 1) -> None:
        """Say that the node is alive."""
        self._talk().send_heartbeat(messages.Heartbeat(sequence, self._clock()))
        self._wake.set()

    def inventory(self, facts: dict[str, Any]) -> None:
        """Tell facts."""
        self._talk().send_inventory(facts)
        self._wake.set()

    def report(self, observed: Observed) -> None:
        """Say something, true or not."""
        self._talk().send_observed(observed)
        self._wake.set()

    async def raw(self, frame: str | bytes) -> None:
        """Write a frame as it is."""
        if self._socket is None:
            raise AssertionError("not connected")
        await self._socket.send(frame)

    def release(self, attempt: str) -> None:
        """Let an attempt that is held end."""
        self.spool[attempt].released.set()

    # -- inside ------------------------------------------------------------------------------

    def _talk(self) -> AgentConversation:
        if self._conversation is None:
            raise AssertionError("not connected")
        return self._conversation

    async def _announce(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _receive(self, frame: str | bytes) -> None:
        conversation = self._talk()
        conversation.receive(frame)
        for event in conversation.events_received():
            self._take(event)
        self._wake.set()

    def _take(self, event: object) -> None:
        conversation = self._talk()
        self.received.append(event)
        match event:
            case SignatureNeeded(signed=signed):
                signature = self.identity.key.sign(signed).signature
                conversation.greet(signature, clock=self._clock(), life=self.life)
            case Opened():
                everything = tuple(one.observation() for one in self.spool.values())
                conversation.send_observed(Observed(self.revision, everything, complete=True))
                self.opened.set()
            case Desired():
                self.revision, self.admin = event.revision, event.admin
                for wanted in event.attempts:
                    self._want(wanted)
                if not event.attempts:
                    conversation.send_observed(Observed(self.revision))
            case messages.Sealed():
                for id_ in event.attempts:
                    self.spool.pop(id_, None)
            case messages.Unknown():
                self.unknown += event.attempts
            case messages.Beat():
                self.beats += 1
            case Closed():
                conversation.close(event.code, event.reason)

    def _want(self, wanted: Wanted) -> None:
        self.generation = max(self.generation, generation_of(wanted.epoch))
        held = self.spool.get(wanted.attempt)
        if wanted.wish == "forget":
            if held is not None and held.epoch <= wanted.epoch:
                del self.spool[wanted.attempt]
            return
        if wanted.wish == "stop":
            if (why := self._stop_objection(wanted)) is not None:
                self.refused.append((wanted.attempt, why))
                self._talk().send_refusal(
                    messages.StopRefused(wanted.attempt, wanted.epoch, self._clock(), why)
                )
                return
            if held is None:
                held = self.spool[wanted.attempt] = FakeAttempt(wanted.attempt, wanted.epoch)
                held.happenings.append(NeverStarted(self._clock()))
                self._say(held)
            held.stopped.set()
            return
        if wanted.order is None or self.behaviour.silent:
            return
        if held is not None and held.epoch >= wanted.epoch:
            self._say(held)
            return
        attempt = self.spool[wanted.attempt] = FakeAttempt(wanted.attempt, wanted.epoch)
        if self.behaviour.decline is not None or self.admin != "active":
            reason = self.behaviour.decline or f"this node is {self.admin}"
            final = self.behaviour.decline_final
            attempt.happenings.append(Declined(self._clock(), reason, final))
            self._say(attempt)
            return
        self.starts.append((wanted.attempt, wanted.epoch))
        self._start(attempt, wanted.order.spec)

    def _stop_objection(self, wanted: Wanted) -> str | None:
        """As an agent does it, where both sides know signed stops."""
        order = wanted.stop
        if not self._talk().tells_refusals or self._server_key is None:
            return None
        if order is None:
            return "the stop is not signed"
        try:
            VerifyKey(self._server_key).verify(stop_bytes(order.envelope), order.signature)
        except CryptoError:
            return "the stop's signature is wrong"
        return stop_objection(
            order.envelope,
            cluster=self.identity.cluster,
            node=self.identity.node,
            attempt=wanted.attempt,
            epoch=wanted.epoch,
            grace=wanted.grace,
            begun=None,
        )

    def _start(self, attempt: FakeAttempt, spec: Spec) -> None:
        steps = spec.steps if isinstance(spec, Scripted) else _steps(spec)
        began = self._clock()
        attempt.happenings.append(Started(began))
        waits = self.behaviour.hold or (self.behaviour.late and any(s.seconds for s in steps))
        if not waits:
            code = 0
            for step in steps:
                code = self._play(attempt, step) or code
            self._end(attempt, began, code)
            return
        self._say(attempt)
        if self._group is None:
            raise AssertionError("an order came without a link")
        playing = self._group.create_task(self._play_slowly(attempt, steps, began))
        self._playing.add(playing)
        playing.add_done_callback(self._playing.discard)

    async def _play_slowly(self, attempt: FakeAttempt, steps: tuple[Step, ...], began: int) -> None:
        code = 0
        for step in steps:
            code = self._play(attempt, step) or code
            self._say(attempt)
            if step.seconds and self.behaviour.late:
                try:
                    async with asyncio.timeout(step.seconds):
                        await attempt.stopped.wait()
                except TimeoutError:
                    continue
                break
        if self.behaviour.hold and not attempt.stopped.is_set():
            async with asyncio.TaskGroup() as group:
                waits = [
                    group.create_task(attempt.stopped.wait()),
                    group.create_task(attempt.released.wait()),
                ]
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                for one in waits:
                    one.cancel()
        stopped = attempt.stopped.is_set() and not attempt.released.is_set()
        self._end(attempt, began, code, stopped=stopped)

    def _play(self, attempt: FakeAttempt, step: Step) -> int:
        now = self._clock()
        if step.do == "print":
            for _ in range(step.count):
                attempt.write(f"{step.text}\n".encode(), step.stream, now)
        elif step.do == "bytes":
            attempt.write(bytes(n & 0xFF for n in range(step.size)), step.stream, now)
        elif step.do == "exit":
            return step.code
        return 0

    def _end(self, attempt: FakeAttempt, began: int, code: int, *, stopped: bool = False) -> None:
        now = self._clock()
        attempt.happenings.append(
            Exited(
                at=now,
                cause="stopped" if stopped else "exited",
                exit_code=None if stopped else code,
                signal=15 if stopped else None,
                started_at=began,
                duration=(now - began) / 1e6,
                length=len(attempt.log),
                sha256=hashlib.sha256(attempt.log).hexdigest(),
            )
        )
        self._say(attempt)

    def _say(self, attempt: FakeAttempt) -> None:
        """Send output within the credit, then the happenings, from the writer."""
        self._unsaid[attempt.attempt] = attempt
        self._wake.set()

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            conversation = self._talk()
            if self.opened.is_set():
                for attempt in list(self.spool.values()) if self._unsaid else ():
                    self._send_log(conversation, attempt)
                if self._unsaid:
                    said = tuple(one.observation() for one in self._unsaid.values())
                    self._unsaid.clear()
                    conversation.send_observed(Observed(self.revision, said))
                for attempt in list(self.spool.values()):
                    self._send_log(conversation, attempt)
            if self._socket is not None:
                for frame in conversation.data_to_send():
                    await self._socket.send(frame)
                if conversation.close_code is not None:
                    await self._socket.close(conversation.close_code, conversation.close_reason)
            await self._announce()

    def _send_log(self, conversation: AgentConversation, attempt: FakeAttempt) -> None:
        credit = conversation.credit
        position = credit.position(attempt.attempt)
        while position is not None and position < len(attempt.log) and credit.free:
            size = min(self.behaviour.chunk, credit.free, len(attempt.log) - position)
            payload = bytes(attempt.log[position : position + size])
            body = chunks.encode([Piece(1, size, self._clock())], [payload])
            sent = _compress(body) if ZSTD in conversation.features else body
            conversation.send_log(attempt.attempt, position, position + size, len(body), sent)
            position += size


def _steps(spec: Spec) -> tuple[Step, ...]:
    """A fake node runs no script: it prints one line for it and ends well."""
    text = spec.script.strip()[:80] if isinstance(spec, Script) else "pong"
    return (Step("print", text=text),)
