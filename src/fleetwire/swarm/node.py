"""One simulated agent: the protocol's conversation over a channel, and a spool in memory.

It keeps what a node must keep (architecture 5): an (attempt, epoch) starts at most once, all
that it has is told again on every link until it is sealed, and what Desired does not mention
stays. Orders are taken without looking at their signature: it runs nothing.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

import zstandard

import fleetwire
from fleetwire.agent import keys
from fleetwire.core import chunks, limits
from fleetwire.core.chunks import Piece
from fleetwire.core.desired import Desired, Observation, Observed, Wanted
from fleetwire.core.dispatch import AdminState
from fleetwire.core.happenings import Declined, Exited, Happening, NeverStarted, Started
from fleetwire.core.leases import generation_of
from fleetwire.protocol import messages
from fleetwire.protocol.conversation import (
    AgentConversation,
    AgentEvent,
    Closed,
    Opened,
    Phase,
    SignatureNeeded,
)
from fleetwire.protocol.versions import ZSTD
from fleetwire.swarm.behaviour import Behaviour, Output
from fleetwire.swarm.channel import Channel, Frame
from fleetwire.swarm.identities import Identity

ANSWER_S: Final = 10.0
SILENCE_BEATS: Final = 3
SILENCE_LEAST_S: Final = 5.0
_GOING_AWAY: Final = 1001
_compress = zstandard.ZstdCompressor(level=1).compress


class Host(Protocol):
    """What simulated agents share: the fleet. `wall` is microseconds since 1970."""

    cluster: str
    server_name: str
    boot_id: str
    incarnation: str
    behaviour: Behaviour
    output: Output
    loop: asyncio.AbstractEventLoop

    def wall(self) -> int:
        """Wall time, microseconds since 1970."""
        ...

    def nonce(self) -> str:
        """32 characters of chance."""
        ...

    def fails(self) -> bool:
        """Whether the next task fails."""
        ...

    def connected(self) -> None:
        """A node has a connection."""
        ...

    def started(self) -> None:
        """A task has begun."""
        ...

    def finished(self, *, failed: bool) -> None:
        """A task has ended."""
        ...

    def came_online(self, node: SimulatedNode) -> None:
        """The server has told a node its level: record and node agree from here on."""
        ...

    def went_offline(self, node: SimulatedNode, code: int | None, reason: str) -> None:
        """A node's link is over."""
        ...


class _Attempt:
    """An attempt in the spool of a simulated agent. `length` counts the bytes it has written."""

    __slots__ = ("began", "epoch", "happenings", "id", "length", "timer")

    def __init__(self, id_: str, epoch: int) -> None:
        self.id = id_
        self.epoch = epoch
        self.began = 0
        self.length = 0
        self.happenings: list[Happening] = []
        self.timer: asyncio.TimerHandle | None = None

    def observation(self) -> Observation:
        return Observation(self.id, self.epoch, tuple(self.happenings), self.length)


class SimulatedNode:
    """See the module."""

    __slots__ = (
        "_admin",
        "_beat",
        "_conversation",
        "_generation",
        "_heard_at",
        "_heartbeat_s",
        "_host",
        "_revision",
        "_running",
        "_sequence",
        "_spool",
        "_unsaid",
        "channel",
        "failures",
        "identity",
        "online",
        "opened_at",
        "seen",
    )

    def __init__(self, identity: Identity, host: Host) -> None:
        self.identity = identity
        self.online = False
        self.channel: Channel | None = None
        self.failures = 0
        self.seen = False
        self.opened_at: float | None = None
        self._host = host
        self._conversation: AgentConversation | None = None
        self._beat: asyncio.TimerHandle | None = None
        self._heartbeat_s = limits.HEARTBEAT_S
        self._heard_at = 0.0
        self._sequence = 0
        self._generation = 0
        self._revision = 0
        self._admin: AdminState = "active"
        self._running = 0
        self._spool: dict[str, _Attempt] = {}
        self._unsaid: dict[str, _Attempt] = {}

    # -- its link ----------------------------------------------------------------------------

    def upgraded(self) -> None:
        """Begin the conversation; the server speaks first."""
        host = self._host
        self._conversation = AgentConversation(
            node=self.identity.node,
            cluster=host.cluster,
            server_name=host.server_name,
            incarnation=host.incarnation,
            boot_id=host.boot_id,
            agent_version=fleetwire.__version__,
            generation=self._generation,
            nonce=host.nonce(),
        )
        self._drop_later(limits.HELLO_WITHIN_S)

    def arrived(self, frames: list[Frame]) -> None:
        """Take frames, and answer."""
        conversation = self._conversation
        if conversation is None:
            return
        self._heard_at = self._host.loop.time()
        for frame in frames:
            conversation.receive(frame)
        for event in conversation.events_received():
            self._take(conversation, event)
        self._speak()

    def ended(self, code: int | None, reason: str) -> None:
        """The link is over; what runs runs on."""
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None
        self.channel = None
        self._conversation = None
        self._unsaid.clear()
        self._host.went_offline(self, code, reason)
        self.online = False

    def connected(self) -> None:
        """Give up a server that does not answer."""
        self.opened_at = None
        self._drop_later(ANSWER_S)
        self._host.connected()

    def leave(self) -> None:
        """Close the link in order."""
        if self.channel is not None:
            self.channel.close(_GOING_AWAY, "the swarm leaves")

    def _drop_later(self, seconds: float) -> None:
        if self._beat is not None:
            self._beat.cancel()
        self._beat = self._host.loop.call_later(seconds, self._drop)

    def _drop(self) -> None:
        self._beat = None
        if self.channel is not None:
            self.channel.abort()

    def _take(self, conversation: AgentConversation, event: AgentEvent) -> None:
        match event:
            case SignatureNeeded(signed=signed):
                signature = keys.sign(self.identity.seed, signed)
                conversation.greet(signature, clock=self._host.wall())
            case Opened(welcome=welcome):
                self._open(conversation, welcome)
            case Desired():
                self._apply(event, conversation)
            case messages.Sealed():
                for id_ in event.attempts:
                    self._forget(id_)
            case messages.Unknown():
                for id_ in event.attempts:
                    self._forget(id_)
            case messages.Durable() | messages.Resend() | messages.Beat() | Closed():
                pass  # the conversation has taken in what they say

    def _open(self, conversation: AgentConversation, welcome: messages.Welcome) -> None:
        # All that the spool holds, before anything else (law 1).
        everything = tuple(one.observation() for one in self._spool.values())
        conversation.send_observed(Observed(self._revision, everything, complete=True))
        self._heartbeat_s = self._host.behaviour.heartbeat_s or max(0.05, welcome.heartbeat_s)
        self.opened_at = self._host.loop.time()
        if self._beat is not None:
            self._beat.cancel()
        self._beat = self._host.loop.call_later(self._heartbeat_s, self._heartbeat)

    def _heartbeat(self) -> None:
        host = self._host
        conversation = self._conversation
        if conversation is None or self.channel is None:
            return
        patience = max(SILENCE_LEAST_S, SILENCE_BEATS * self._heartbeat_s)
        if host.loop.time() - self._heard_at > patience:
            self._drop()
            return
        self._sequence += 1
        conversation.send_heartbeat(
            messages.Heartbeat(self._sequence, host.wall(), busy=self._running)
        )
        self.channel.send(conversation.data_to_send())
        self._beat = host.loop.call_later(self._heartbeat_s, self._heartbeat)

    # -- its attempts ------------------------------------------------------------------------

    def _apply(self, desired: Desired, conversation: AgentConversation) -> None:
        confirm = desired.revision != self._revision or not desired.attempts
        self._revision, self._admin = desired.revision, desired.admin
        for wanted in desired.attempts:
            self._want(wanted)
        if confirm and not self._unsaid:
            conversation.send_observed(Observed(self._revision))
        if not self.online:
            self.online = True
            self._host.came_online(self)

    def _want(self, wanted: Wanted) -> None:
        self._generation = max(self._generation, generation_of(wanted.epoch))
        held = self._spool.get(wanted.attempt)
        if wanted.wish == "forget":
            if held is not None and held.epoch <= wanted.epoch:
                self._forget(wanted.attempt)
        elif wanted.wish == "stop":
            self._stop(wanted, held)
        elif wanted.order is None:
            return
        elif held is not None and held.epoch >= wanted.epoch:
            self._unsaid[held.id] = held
        else:
            self._start(wanted)

    def _start(self, wanted: Wanted) -> None:
        host = self._host
        self._forget(wanted.attempt)
        attempt = self._spool[wanted.attempt] = _Attempt(wanted.attempt, wanted.epoch)
        self._unsaid[attempt.id] = attempt
        attempt.began = host.wall()
        if self._admin != "active":
            reason = f"this node is {self._admin}"
            attempt.happenings.append(Declined(attempt.began, reason, final=False))
            return
        attempt.happenings.append(Started(attempt.began))
        self._running += 1
        host.started()
        if host.behaviour.latency_s > 0:
            attempt.timer = host.loop.call_later(host.behaviour.latency_s, self._finish, attempt)
        else:
            self._end(attempt)

    def _stop(self, wanted: Wanted, held: _Attempt | None) -> None:
        if held is None:
            held = self._spool[wanted.attempt] = _Attempt(wanted.attempt, wanted.epoch)
            held.happenings.append(NeverStarted(self._host.wall()))
        elif held.timer is not None:
            self._end(held, stopped=True)
        self._unsaid[held.id] = held

    def _finish(self, attempt: _Attempt) -> None:
        self._end(attempt)
        self._speak()

    def _end(self, attempt: _Attempt, *, stopped: bool = False) -> None:
        host = self._host
        if attempt.timer is not None:
            attempt.timer.cancel()
            attempt.timer = None
        now = host.wall()
        code = 1 if not stopped and host.fails() else 0
        attempt.length = len(host.output.payload)
        attempt.happenings.append(
            Exited(
                at=now,
                cause="stopped" if stopped else "exited",
                exit_code=None if stopped else code,
                signal=15 if stopped else None,
                started_at=attempt.began,
                duration=max(0, now - attempt.began) / 1e6,
                length=attempt.length,
                sha256=host.output.sha256,
            )
        )
        self._running -= 1
        self._unsaid[attempt.id] = attempt
        host.finished(failed=bool(code))

    def _forget(self, id_: str) -> None:
        attempt = self._spool.pop(id_, None)
        self._unsaid.pop(id_, None)
        if attempt is not None and attempt.timer is not None:
            attempt.timer.cancel()
            self._running -= 1
            self._host.finished(failed=False)

    # -- what it says ------------------------------------------------------------------------

    def _speak(self) -> None:
        """Send output within the credit, then what has happened, in one write."""
        conversation, channel = self._conversation, self.channel
        if conversation is None or channel is None:
            return
        if conversation.phase is Phase.OPEN:
            for attempt in self._spool.values():
                self._send_log(conversation, attempt)
            if self._unsaid:
                said = tuple(one.observation() for one in self._unsaid.values())
                self._unsaid.clear()
                conversation.send_observed(Observed(self._revision, said))
        frames = conversation.data_to_send()
        if frames:
            channel.send(frames)
        if conversation.close_code is not None:
            channel.close(conversation.close_code, conversation.close_reason)

    def _send_log(self, conversation: AgentConversation, attempt: _Attempt) -> None:
        credit = conversation.credit
        position = credit.position(attempt.id)
        most = self._host.behaviour.frame_bytes
        while position is not None and position < attempt.length and credit.free:
            size = min(most, credit.free, attempt.length - position)
            payload = self._host.output.payload[position : position + size]
            body = chunks.encode([Piece(1, size, self._host.wall())], [payload])
            sent = _compress(body) if ZSTD in conversation.features else body
            conversation.send_log(attempt.id, position, position + size, len(body), sent)
            position += size
