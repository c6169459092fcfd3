"""The agents' door: `/ws/agent/{node}`, plain ASGI, and everything that works for its links.

Before the hello is accepted a connection may do nothing but say hello, soon, and only so many
may try at once: whoever is unknown costs little.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any, Final

import structlog
from starlette.routing import BaseRoute, WebSocketRoute

from fleetwire.core import limits
from fleetwire.core.clones import HOLD_BEATS
from fleetwire.core.envelopes import SignedKey, hello_objection
from fleetwire.core.errors import FleetwireError
from fleetwire.core.ids import is_id
from fleetwire.core.stops import SignedWord
from fleetwire.protocol import messages
from fleetwire.protocol.conversation import Phase, ServerConversation, VerifyNeeded
from fleetwire.protocol.versions import FEATURES, SIGNED_STOPS, SUBPROTOCOL
from fleetwire.server.domain.nodes import NodeRefused, NodeWaiting, Reading
from fleetwire.server.gateway.alarms import Alarms
from fleetwire.server.gateway.batches import RETRY_AFTER_S, Levels, Reports, SpokenTo
from fleetwire.server.gateway.gate import Gate, Place
from fleetwire.server.gateway.greetings import Greetings, Unverified, Welcomed
from fleetwire.server.gateway.link import (
    Link,
    LinkEnded,
    Receive,
    Rooms,
    Send,
)
from fleetwire.server.gateway.links import Links
from fleetwire.server.logs.base import LogStore, StaleLink
from fleetwire.server.nudges.base import Nudges
from fleetwire.server.store.engine import Database, DatabaseFailed, Tx

CLOSE_WITHIN_S: Final = 5.0
REASON_BYTES: Final = 120
WAITING_S: Final = 5
"""How often a node that waits for approval asks."""

_log = structlog.get_logger()


class Gateway:
    """All links of this process. Mount `routes`, and run `run` beside them.

    `key` is the id of the server's key (not the key: orders come signed from the record),
    `nonce` makes 32 to 64 characters of chance, `clock` is microseconds since 1970,
    `monotonic` seconds. `names` returns the hosts that this server is reached by now, None where
    that does not matter; `ca` returns the fingerprint of the CA that agents pin, None where there
    is none. `chain`: which keys of the server followed which; `stops`: its word that it signs
    stops, None where nobody does.
    """

    def __init__(
        self,
        database: Database,
        logs: LogStore,
        nudges: Nudges,
        *,
        cluster_id: str,
        key: str,
        clock: Callable[[], int],
        monotonic: Callable[[], float],
        nonce: Callable[[], str],
        heartbeat_s: float = limits.HEARTBEAT_S,
        lease_s: float = limits.LEASE_S,
        hello_within_s: float = limits.HELLO_WITHIN_S,
        names: Callable[[], Collection[str] | None] = lambda: None,
        ca: Callable[[], str | None] = lambda: None,
        chain: tuple[SignedKey, ...] = (),
        stops: SignedWord | None = None,
        hellos_at_once: int = limits.HELLOS_AT_ONCE,
    ) -> None:
        self._stops = stops
        self._offered = tuple(one for one in FEATURES if stops is not None or one != SIGNED_STOPS)
        self._database = database
        self._logs = logs
        self._cluster = cluster_id
        self._clock = clock
        self._nonce = nonce
        self._heartbeat_s = heartbeat_s
        self._lease_s = lease_s
        self._hello_within_s = hello_within_s
        self._names = names
        self._ca = ca
        self._chain = chain
        self._monotonic = monotonic
        self._gate = Gate(monotonic=monotonic, at_once=hellos_at_once)
        self._greetings = Greetings(database, key=key, signs=stops is not None, monotonic=monotonic)
        self.links: Links[SpokenTo] = Links(monotonic=monotonic, clock=clock)
        self._reports = Reports(database)
        self._levels = Levels(database, nudges, self.links, key=key)
        self._rooms = Rooms(
            database,
            logs,
            self._reports,
            self._levels,
            clock,
            monotonic,
            self.links.heard,
            self.links.skewed,
            Alarms(database, monotonic),
        )
        self.routes: list[BaseRoute] = [WebSocketRoute("/ws/agent/{node}", self)]

    def reading(self, node: str) -> Reading:
        """Tell the leases loop how a node is heard here."""
        return self.links.reading(node)

    def react(self, tx: Tx, topics: Collection[str]) -> Collection[str]:
        """Tell the nodes what this commit changes for them (a `Reaction`)."""
        return self._levels.react(tx, topics)

    async def run(self) -> None:
        """Work for the links until cancelled; then tell them to come again later."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._greetings.run(), name="gateway: greetings")
                group.create_task(self._reports.run(), name="gateway: reports")
                group.create_task(self._levels.run(), name="gateway: levels")
        finally:
            for link in self.links:
                link.close(messages.CLOSE_LATER, "retry_after=1; the server is going down")

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Serve one connection (ASGI)."""
        await receive()  # websocket.connect
        if any(name == b"origin" for name, _ in scope["headers"]):
            # Agents send none; a browser does, and no page may open this socket.
            await send({"type": "websocket.close", "code": messages.CLOSE_FORBIDDEN})
            return
        spoken = SUBPROTOCOL in scope["subprotocols"]
        await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL if spoken else None})
        code: int | None
        if not spoken:
            code, reason = messages.CLOSE_VERSION, f"This door speaks {SUBPROTOCOL} only."
        elif (place := self._gate.enter(_address(scope))) is None:
            code, reason = messages.CLOSE_LATER, self._later()
        else:
            code, reason = await self._serve(scope, receive, send, place)
        if code is not None:
            try:
                async with asyncio.timeout(CLOSE_WITHIN_S):
                    # What a close frame can carry (RFC 6455, 5.5).
                    cut = reason.encode()[:REASON_BYTES].decode(errors="ignore")
                    await send({"type": "websocket.close", "code": code, "reason": cut})
            except (OSError, TimeoutError):
                return  # the peer has gone meanwhile, or reads nothing: nobody is to be told

    def _later(self) -> str:
        return f"retry_after={self._gate.later():.1f}; too many at once"

    async def _serve(
        self, scope: dict[str, Any], receive: Receive, send: Send, place: Place
    ) -> tuple[int | None, str]:
        """Serve a connection to its end; return the close code, None where the peer has gone."""
        node = scope["path_params"]["node"]
        try:
            await self._serve_link(node, scope, receive, send, place)
        except BaseExceptionGroup as group:
            return _why(group, node)
        except (LinkEnded, FleetwireError, OSError) as error:
            return _why(BaseExceptionGroup("link", [error]), node)
        raise AssertionError("a link ends by an exception")

    async def _serve_link(
        self, node: str, scope: dict[str, Any], receive: Receive, send: Send, place: Place
    ) -> None:
        link = await self._greet(node, scope, receive, send, place)
        self.links.add(link)
        try:
            await self._welcome(link)
            await link.run(receive)
        finally:
            self.links.remove(link)
            self._levels.unwatch(node)

    async def _greet(
        self, node: str, scope: dict[str, Any], receive: Receive, send: Send, place: Place
    ) -> Link:
        """Return the link that a hello asks for, once its acceptance is committed."""
        conversation = ServerConversation(
            cluster=self._cluster,
            node=node,
            nonce=self._nonce(),
            clock=self._clock(),
            offered=self._offered,
            # Only this machine gets here without TLS.
            needs_bound=scope.get("scheme") == "wss",
        )
        try:
            async with place.within(self._hello_within_s):
                hello = await self._hello(conversation, receive, send)
                self._gate.heard(place)
                self._check_addressee(hello.hello)
                agent = None if hello.hello.life is None else hello.hello.life.agent
                holds = self._holds(node, agent)
                accepted, level = await self._accept(node, hello, _address(scope), holds=holds)
        except TimeoutError:
            if place.gave_way:
                raise LinkEnded(messages.CLOSE_LATER, self._later()) from None
            raise LinkEnded(
                messages.CLOSE_TOO_SLOW, f"No hello within {self._hello_within_s:g} s."
            ) from None
        finally:
            self._gate.passed(place)
        _log.info("link opened", node=accepted.name, link_epoch=accepted.link_epoch)
        until = self._monotonic() + HOLD_BEATS * self._heartbeat_s if holds else 0.0
        return Link(
            conversation,
            accepted.link_epoch,
            self._rooms,
            send,
            level,
            agent=agent,
            held_until=until,
        )

    def _check_addressee(self, hello: messages.Hello) -> None:
        """A hello that was made for another server has been passed on to us by that one."""
        why = hello_objection(hello.server_name, hello.ca, names=self._names(), our_ca=self._ca())
        if why is not None:
            raise LinkEnded(messages.CLOSE_UNAUTHENTICATED, why)

    def _holds(self, node: str, agent: str | None) -> bool:
        """Say whether another process of the node's agent has a link that nobody saw end."""
        older = self.links.get(node)
        known = getattr(older, "agent", None)
        return known is not None and agent is not None and known != agent

    async def _welcome(self, link: Link) -> None:
        """Fence the node's older links, and tell it the terms."""
        await self._logs.fence(link.node, link.link_epoch)
        link.welcome(
            messages.Welcome(
                link_epoch=link.link_epoch,
                heartbeat_s=self._heartbeat_s,
                lease_s=self._lease_s,
                credit=limits.CREDIT_BYTES,
                clock=self._clock(),
            ),
            self._chain,
            self._stops,
        )

    async def _hello(
        self, conversation: ServerConversation, receive: Receive, send: Send
    ) -> VerifyNeeded:
        """Send the challenge; return the hello that answers it."""
        for frame in conversation.data_to_send():
            await send({"type": "websocket.send", "text": frame})
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                raise LinkEnded(None)
            text = message.get("text")
            if text is not None and len(text) > limits.CONTROL_FRAME_BYTES:
                raise LinkEnded(messages.CLOSE_TOO_LARGE, "The hello is too large.")
            conversation.receive(message["bytes"] if text is None else text)
            for event in conversation.events_received():
                if isinstance(event, VerifyNeeded):
                    return event
            if conversation.phase is Phase.CLOSED:
                code = conversation.close_code or messages.CLOSE_BAD_FRAME
                raise LinkEnded(code, conversation.close_reason)

    async def _accept(
        self, node: str, hello: VerifyNeeded, address: str | None, *, holds: bool
    ) -> Welcomed:
        """Check who it is, and take it: unknown, wrong key and wrong signature look alike."""
        wrong = LinkEnded(
            messages.CLOSE_UNAUTHENTICATED, "This is not the key of a node of this cluster."
        )
        if not is_id(node):
            raise wrong
        try:
            away_s = self.links.away_s(node)
            return await self._greetings.take(node, hello, address, away_s, holds=holds)
        except Unverified:
            raise wrong from None


def _address(scope: dict[str, Any]) -> str | None:
    """Return the address that a connection comes from, or that a trusted proxy forwards."""
    client = scope.get("client")
    return client[0] if client else None


def _why(group: BaseExceptionGroup[BaseException], node: str) -> tuple[int | None, str]:
    """Return the close code and reason of what ended a link; log what nobody foresaw."""
    failed = group.subgroup(DatabaseFailed)
    if failed is not None:
        # The database says so to the whole process, which ends (P15).
        return messages.CLOSE_LATER, f"retry_after={RETRY_AFTER_S}"
    ended = _first(group, LinkEnded)
    if isinstance(ended, LinkEnded):
        return ended.code, ended.reason
    refused = _first(group, NodeRefused)
    if isinstance(refused, NodeWaiting):
        return messages.CLOSE_LATER, f"retry_after={WAITING_S}; {refused.detail}"
    if isinstance(refused, NodeRefused):
        return messages.CLOSE_FORBIDDEN, refused.detail
    if _first(group, StaleLink) is not None:
        return messages.CLOSE_NEWER_LINK, "A newer link of this node has taken over."
    if _first(group, OSError) is not None:
        return None, ""
    known = _first(group, FleetwireError)
    if known is not None:
        _log.warning("link ended", node=node, error=str(known))
        return messages.CLOSE_LATER, f"retry_after={RETRY_AFTER_S}"
    if group.subgroup(lambda error: not isinstance(error, Exception)) is not None:
        raise group
    _log.error("link ended by an error", node=node, exc_info=group)
    return messages.CLOSE_LATER, f"retry_after={RETRY_AFTER_S}"


def _first(
    group: BaseExceptionGroup[BaseException], kind: type[BaseException]
) -> BaseException | None:
    found: BaseException | None = group.subgroup(kind)
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
