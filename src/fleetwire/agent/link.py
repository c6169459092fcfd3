"""The one link to a server: dial, prove who we are, talk, and when it breaks dial again, for ever.

A shell around `protocol.AgentConversation`: it owns the socket, the clock and the keys, and
decides nothing about attempts.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import ssl
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import fleetwire
from fleetwire.agent import backoff, inventory, keys, platforms
from fleetwire.agent.channel import (
    Channel,
    LinkClosed,
    LinkRefused,
    dialled_name,
    is_secure,
    open_channel,
)
from fleetwire.agent.config import AgentConfig
from fleetwire.agent.identity import Identity
from fleetwire.agent.lease import Lease
from fleetwire.agent.life import LifeBook
from fleetwire.agent.policy import LocalPolicy, Standing
from fleetwire.agent.protection import Protection
from fleetwire.agent.roster import Roster
from fleetwire.agent.server_keys import ServerKeys
from fleetwire.agent.status import Status
from fleetwire.agent.steps import StepBook
from fleetwire.agent.trust import Trust
from fleetwire.agent.uploader import Uploader
from fleetwire.core import limits
from fleetwire.core.clones import Step
from fleetwire.core.desired import Desired, Observed
from fleetwire.core.envelopes import SignedKey
from fleetwire.core.stops import SignedWord
from fleetwire.protocol import messages
from fleetwire.protocol.conversation import (
    AgentConversation,
    AgentEvent,
    Closed,
    Opened,
    Phase,
    SignatureNeeded,
)

_DIAL_S: Final = 10.0
_SILENCE_BEATS: Final = 3  # this many unanswered heartbeats, and the link counts as dead
_SILENCE_LEAST_S: Final = 5.0
_STEADY_S: Final = 5.0  # a link that held so long was no failure
_INVENTORY_S: Final = 600.0
_FULL_S: Final = 5.0  # how often a full disk is looked at when nothing else happens
_GOING_AWAY: Final = 1001

_log = logging.getLogger(__name__)


class Parts(NamedTuple):
    """What a link works with. `chance`: uniform in [0, 1). `clock`: seconds, monotonic, sleep
    included. `wall`: microseconds since 1970.
    """

    config: AgentConfig
    identity: Identity
    roster: Roster
    lease: Lease
    status: Status
    book: LifeBook
    policy: LocalPolicy
    around: Protection
    clock: Callable[[], float]
    wall: Callable[[], int]
    chance: Callable[[], float]
    trust: Trust = Trust()
    steps: StepBook | None = None


class Link:
    """One per agent."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._boot_id = platforms.boot_id()
        self._open: _OpenLink | None = None
        self._context: ssl.SSLContext | None = None
        self._was_replaced = False
        self._server_keys = ServerKeys(parts.config.state, parts.identity)

    async def run(self) -> None:
        """Keep a link up, for ever. Cancelling drops it; `leave` first closes it in order."""
        servers = [
            server
            for server in (self._parts.config.server, self._parts.config.backup_server)
            if server
        ]
        turn = failures = 0
        while True:
            server = servers[turn % len(servers)]
            began = self._parts.clock()
            end, welcomed = await self._once(server)
            if welcomed and self._parts.clock() - began >= _STEADY_S:
                failures = 0
            failures += 1
            wait = self._wait_s(end, failures)
            if not welcomed:
                turn += 1
            self._parts.status.say(
                "link", f"not connected: {server}: {end.reason}; next try within {wait:.1f} s"
            )
            self._tell(server, end, wait)
            await asyncio.sleep(wait)

    async def leave(self) -> None:
        """Close the link in order, if there is one. Attempts live on."""
        if self._open is not None:
            await self._open.channel.close(_GOING_AWAY, "the agent leaves; its attempts live on")

    async def _once(self, server: str) -> tuple[LinkClosed, bool]:
        """Hold one link from dial to end. Returns how it ended and whether it was welcomed."""
        self._parts.status.say("link", f"connecting to {server}")
        try:
            channel = await open_channel(
                server,
                self._parts.identity.node,
                timeout_s=_DIAL_S,
                tls=self._tls(server),
            )
        except LinkClosed as end:
            return end, False
        except TimeoutError:
            return LinkClosed(None, f"no answer within {_DIAL_S:.0f} s"), False
        except ssl.SSLCertVerificationError as error:
            return LinkClosed(None, self._parts.trust.objection(server, error)), False
        except OSError as error:
            return LinkClosed(None, error.strerror or str(error)), False
        step = None if self._parts.steps is None else self._parts.steps.begin()
        link = self._open = _OpenLink(
            self._parts, self._boot_id, server, channel, step, self._server_keys
        )
        try:
            ended = await link.hold()
            self._was_replaced = link.welcomed and link.is_bound
            return ended, link.welcomed
        finally:
            channel.abort()
            self._open = None
            self._parts.roster.disconnected()

    def _tls(self, server: str) -> ssl.SSLContext | None:
        """Return what verifies the server: made once, it reads files."""
        if not is_secure(server):
            return None
        if self._context is None:
            self._context = self._parts.trust.context()
        return self._context

    def _wait_s(self, end: LinkClosed, failures: int) -> float:
        asked = backoff.asked_delay_s(end.reason, self._parts.chance)
        if end.code == messages.CLOSE_LATER and asked is not None:
            return asked
        if end.code == messages.CLOSE_NEWER_LINK and self._was_replaced:
            # Another one with our key has a link now. The server that knows our steps can tell what
            # that means as soon as both have spoken.
            return backoff.delay_s(1, initial_s=1.0, most_s=1.0, chance=self._parts.chance)
        if end.code in backoff.HOPELESS:
            return backoff.slow_delay_s(self._parts.chance)
        return backoff.delay_s(
            failures,
            initial_s=self._parts.config.backoff_initial_s,
            most_s=self._parts.config.backoff_max_s,
            chance=self._parts.chance,
        )

    def _tell(self, server: str, end: LinkClosed, wait: float) -> None:
        why = backoff.HOPELESS.get(end.code or 0)
        if why is not None:
            code = f"HTTP {end.code}" if isinstance(end, LinkRefused) else f"close code {end.code}"
            _log.error(
                "%s (%s from %s: %s); running attempts go on; trying again in %.0f s",
                why,
                code,
                server,
                end.reason,
                wait,
            )
        else:
            _log.warning("no link to %s: %s; trying again in %.1f s", server, end.reason, wait)


class _OpenLink:
    """One link from the open channel on."""

    def __init__(
        self,
        parts: Parts,
        boot_id: str,
        server: str,
        channel: Channel,
        step: Step | None,
        server_keys: ServerKeys,
    ) -> None:
        self._parts = parts
        self._server_keys = server_keys
        self._server = server
        self.channel = channel
        self._conversation = AgentConversation(
            node=parts.identity.node,
            cluster=parts.identity.cluster,
            server_name=dialled_name(server),
            incarnation=parts.identity.incarnation,
            boot_id=boot_id,
            agent_version=fleetwire.__version__,
            generation=parts.roster.level.generation,
            nonce=secrets.token_hex(16),
            ca=parts.trust.ca if is_secure(server) else "",
            step=step,
            needs_bound=is_secure(server),
        )
        self._uploader = Uploader(parts.roster, self._conversation, channel)
        self._heard_at = parts.clock()
        self._greeted_at = 0.0
        self._heartbeat_s = limits.HEARTBEAT_S
        self._told_policy: Standing | None = None
        self._sent_at: dict[int, float] = {}
        self._opened = asyncio.Event()
        self._silent = False

    @property
    def welcomed(self) -> bool:
        """Whether the server accepted us."""
        return self._opened.is_set()

    @property
    def is_bound(self) -> bool:
        """Whether the server knows steps."""
        return self._conversation.is_bound

    async def hold(self) -> LinkClosed:
        """Talk until the link ends; return how."""
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._keep_alive()),
                group.create_task(self._uploader.run()),
                group.create_task(self._tell_inventory()),
            ]
            end = await self._listen()
            for task in tasks:
                task.cancel()
        return end

    async def _listen(self) -> LinkClosed:
        while True:
            try:
                frames = await self.channel.receive()
            except LinkClosed as end:
                if self._silent:
                    return LinkClosed(None, "the server fell silent")
                return end
            self._heard_at = self._parts.clock()
            for frame in frames:
                self._conversation.receive(frame)
            for event in self._conversation.events_received():
                self._take(event)
            self.channel.send(self._conversation.data_to_send())
            if self._conversation.phase is Phase.CLOSED:
                code, reason = self._conversation.close_code, self._conversation.close_reason
                await self.channel.close(code or 1000, reason)
                return LinkClosed(code, reason)

    def _take(self, event: AgentEvent) -> None:
        parts = self._parts
        match event:
            case SignatureNeeded(signed=signed):
                if self._conversation.phase is Phase.CLOSED:
                    return  # what came right behind the challenge has ended the link
                self._greeted_at = parts.clock()
                signature = keys.sign(parts.identity.signing_seed, signed)
                self._conversation.greet(signature, clock=parts.wall(), life=parts.book.life())
            case Opened(welcome=welcome):
                self._open(welcome)
            case Desired():
                parts.roster.apply(event)
                self._tell_refusals()
                self._uploader.wake()
            case messages.NewKeys():
                self._hear_of_keys(event.chain)
            case messages.StopsSigned():
                self._hear_of_stops(event.signed)
            case messages.Durable():
                parts.roster.durable(event.attempt, event.length)
                self._uploader.wake()
            case messages.Resend():
                _log.warning(
                    "the server asks for the log of %s again from %d", event.attempt, event.length
                )
                parts.roster.readable[event.attempt] = None
                self._uploader.wake()
            case messages.Sealed():
                parts.roster.sealed(event.attempts)
                self._uploader.wake()
            case messages.Unknown():
                parts.roster.unknown(event.attempts)
                self._uploader.wake()
            case messages.Beat():
                sent_at = self._sent_at.pop(event.sequence, None)
                if sent_at is not None:
                    parts.lease.renew(sent_at=sent_at, server_clock=event.clock)
            case Closed():
                pass  # `_listen` sees the phase

    def _hear_of_keys(self, chain: tuple[SignedKey, ...]) -> None:
        try:
            self._server_keys.hear(chain)
        except OSError as error:
            # They are told again on the next link; until then the old ones count.
            _log.warning("the server's new key could not be kept: %s", error.strerror)
        self._trust()

    def _hear_of_stops(self, signed: SignedWord) -> None:
        try:
            self._server_keys.hear_of_stops(signed)
        except OSError as error:
            _log.warning("that the server signs stops could not be kept: %s", error.strerror)
        self._trust()

    def _trust(self) -> None:
        keys_ = self._server_keys
        self._parts.roster.trust(keys_.known, signed_stops=keys_.signs_stops)

    def _tell_refusals(self) -> None:
        """Tell of stops that were refused, here or on a link where that could not be said."""
        if self._conversation.tells_refusals:
            for one in self._parts.roster.stops.take_untold():
                self._conversation.send_refusal(
                    messages.StopRefused(one.attempt, one.epoch, one.at, one.reason)
                )

    def _open(self, welcome: messages.Welcome) -> None:
        parts = self._parts
        if parts.steps is not None and self._conversation.is_bound:
            parts.steps.taken()
        parts.lease.grant(
            sent_at=self._greeted_at, lease_s=welcome.lease_s, server_clock=welcome.clock
        )
        self._heartbeat_s = parts.config.heartbeat_s or max(0.05, welcome.heartbeat_s)
        roster = parts.roster
        roster.wake = self._uploader.wake
        # All that the folders say, before anything else (law 1).
        report = Observed(roster.applied, roster.observe(), complete=True)
        self._conversation.send_observed(report)
        self._uploader.confirmed(report.revision, roster.level.admin)
        self._tell_refusals()
        self._opened.set()
        parts.status.say("link", f"connected to {self._server}")
        _log.info("connected to %s", self._server, extra={"fields": {"epoch": welcome.link_epoch}})

    async def _keep_alive(self) -> None:
        """Heartbeats, and the end of a link on which nothing is heard."""
        parts = self._parts
        try:
            async with asyncio.timeout(limits.HELLO_WITHIN_S):
                await self._opened.wait()
        except TimeoutError:
            self._drop_silent()
            return
        sequence = 0
        while True:
            await asyncio.sleep(self._heartbeat_s)
            now = parts.clock()
            patience = max(_SILENCE_LEAST_S, _SILENCE_BEATS * self._heartbeat_s)
            if now - self._heard_at > patience:
                self._drop_silent()
                return
            sequence += 1
            self._sent_at[sequence] = now
            parts.book.look()
            if parts.policy.look() is not self._told_policy:
                parts.roster.disk.changed.set()
            self._conversation.send_heartbeat(
                messages.Heartbeat(
                    sequence, parts.wall(), busy=parts.roster.busy, load=inventory.load()
                )
            )
            self.channel.send(self._conversation.data_to_send())

    def _drop_silent(self) -> None:
        self._silent = True
        self.channel.abort()

    async def _tell_inventory(self) -> None:
        await self._opened.wait()
        roster = self._parts.roster
        while True:
            roster.disk.look(roster.busy)
            roster.disk.changed.clear()
            facts: dict[str, Any] = await asyncio.to_thread(inventory.collect)
            self._told_policy = self._parts.policy.look()
            facts["policy"] = self._parts.policy.facts()
            facts["protection"] = self._parts.around.facts()
            facts["max_concurrent"] = roster.capacity
            facts["starts"] = "refused: " + roster.disk.full if roster.disk.full else "taken"
            self._conversation.send_inventory(facts)
            self.channel.send(self._conversation.data_to_send())
            await self._until_news()

    async def _until_news(self) -> None:
        """Wait until the inventory is old, or the disk has become full, or has space again."""
        roster = self._parts.roster
        told = self._parts.clock()
        while self._parts.clock() - told < _INVENTORY_S:
            try:
                # An idle agent does not look at its disk, but for this.
                async with asyncio.timeout(_FULL_S if roster.disk.full else _INVENTORY_S):
                    await roster.disk.changed.wait()
                return
            except TimeoutError:
                roster.disk.look(roster.busy)
