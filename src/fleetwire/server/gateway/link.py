"""One open link: frames to values to use cases, and back (architecture, journey 5 and 10)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
import structlog

from fleetwire.core import limits
from fleetwire.core.chunks import BadChunk
from fleetwire.core.desired import Desired, Observed, Wanted
from fleetwire.core.dispatch import LOCKED_OUT
from fleetwire.core.envelopes import SignedKey
from fleetwire.core.errors import FleetwireError, LimitExceeded
from fleetwire.core.happenings import Exited, Lost
from fleetwire.core.stops import SignedWord
from fleetwire.protocol import messages
from fleetwire.protocol.codec import BadFrame, LogFrame
from fleetwire.protocol.conversation import Phase, ServerConversation
from fleetwire.protocol.versions import CONFINE
from fleetwire.server.domain import nodes, restore
from fleetwire.server.domain.attempts import Answer, NodeReport
from fleetwire.server.domain.desired import Asked, Level, Word
from fleetwire.server.gateway.alarms import Alarms
from fleetwire.server.gateway.batches import Levels, Reports
from fleetwire.server.gateway.tails import LogTail
from fleetwire.server.logs.base import LogGap, LogGone, LogStore, StaleLink
from fleetwire.server.logs.chunks import compress
from fleetwire.server.store.engine import Database, DatabaseFailed, StorageFull

ASGIMessage: TypeAlias = dict[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[ASGIMessage]]
Send: TypeAlias = Callable[[ASGIMessage], Awaitable[None]]

HELD_BYTES: Final = 2 * limits.CREDIT_BYTES
"""What one link may make the server hold: twice its credit, then it is read no further."""
UNSENT_MOST: Final = 1024
"""Small answers that may wait to be written: whoever asks and does not read is not asked on."""
MENTIONED_MOST: Final = 100_000
"""Attempts that a node can mention before it says that this is all."""
SEND_WITHIN_S: Final = 30.0
REFUSALS_MOST: Final = 100
"""Refused stops that are looked at on one link: it may be told again what is recorded already."""

_log = structlog.get_logger()


class LinkEnded(Exception):
    """The link is over. `code` is None where the peer has gone."""

    def __init__(self, code: int | None, reason: str = "") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


async def _too_slow() -> None:
    raise LinkEnded(messages.CLOSE_TOO_SLOW, f"Nothing was read for {SEND_WITHIN_S:g} s.")


class Rooms(NamedTuple):
    """What links share: the stores, the engines of `batches`, the clocks (microseconds since
    1970, monotonic seconds), and what is recorded of nodes for people.
    """

    database: Database
    logs: LogStore
    reports: Reports
    levels: Levels
    clock: Callable[[], int]
    monotonic: Callable[[], float]
    heard: Callable[[str], None]
    skewed: Callable[[str, int], None]
    alarms: Alarms


class _Waiting(NamedTuple):
    """A report that waits until the log frames before it are durable, so that its exit can be
    recorded and sealed in one commit.
    """

    observed: Observed
    frames: dict[str, int]
    size: int


class Link:
    """An open link of one node. Made once the hello is accepted; lives as long as `run`.

    `agent` is the random id of the agent's process, None where it has told none. Until
    `held_until` (monotonic seconds) it is told no order.
    """

    def __init__(
        self,
        conversation: ServerConversation,
        link_epoch: int,
        rooms: Rooms,
        send: Send,
        level: Level,
        *,
        agent: str | None = None,
        held_until: float = 0.0,
    ) -> None:
        self.node = conversation.node
        self.link_epoch = link_epoch
        self.agent = agent
        self._held_until = held_until
        self._conversation = conversation
        self._rooms = rooms
        self._send = send
        self._level: Level | None = level  # until it is told
        self._wake = asyncio.Event()
        self._room: asyncio.Event | None = None
        self._held = 0
        self._group: asyncio.TaskGroup | None = None
        self._tails: dict[str, LogTail] = {}
        self._told: dict[str, Word] = {}
        self._awaiting: dict[str, int | None] = {}
        self._again: set[str] = set()
        self._mentioned: set[tuple[str, int]] | None = set()
        self._waiting: list[_Waiting] = []
        self._unanswered: list[int] = []
        self._unsent = 0
        self._writes_since: float | None = None
        self._inventory: dict[str, Any] | None = None
        self._revision: tuple[int, str] | None = None
        self._fenced: dict[tuple[str, int], None] = {}
        self._keeps_back = False
        self._refusals = 0

    # -- its life ----------------------------------------------------------------------------

    async def run(self, receive: Receive) -> None:
        """Serve the link until it ends; raises LinkEnded (in a group). The level is told first.

        A fleet has thousands of these frames: nothing that was only needed once stays in them.
        """
        async with asyncio.TaskGroup() as group:
            self._group = group
            await self._begin()
            group.create_task(self._write(), name="link: write")
            self._rooms.levels.watch(self.node)
            await self._read(receive)

    async def _begin(self) -> None:
        """Tell the whole level, with what is durable of each log."""
        level, self._level = self._level, None
        if level is None:
            raise AssertionError("a link runs once")
        logs = [(held.segment, id_) for id_, held in level.held.items()]
        self._tell_all(level, await self._rooms.logs.lengths(logs) if logs else {})

    def welcome(
        self,
        welcome: messages.Welcome,
        chain: tuple[SignedKey, ...] = (),
        stops: SignedWord | None = None,
    ) -> None:
        """Tell the terms, and before any order how the server's keys have changed, and that it
        signs `stops`. Raises LinkEnded where a newer link came before they could be told.
        """
        if self._conversation.phase is Phase.CLOSED:
            raise LinkEnded(self._conversation.close_code, self._conversation.close_reason)
        self._conversation.welcome(welcome)
        self._conversation.send_keys(chain)
        self._conversation.send_stops_word(stops)

    def close(self, code: int, reason: str) -> None:
        """End the link soon, with this close code. Idempotent: the first reason stands."""
        self._conversation.close(code, reason)
        self._wake.set()

    async def _read(self, receive: Receive) -> None:
        conversation = self._conversation
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                raise LinkEnded(None)
            frame = message.get("text")
            if frame is None:
                frame = message["bytes"]
                limit = limits.CHUNK_PAYLOAD_BYTES * 2
            else:
                limit = limits.CONTROL_FRAME_BYTES
            self._rooms.heard(self.node)
            if len(frame) > limit:
                self.close(messages.CLOSE_TOO_LARGE, f"A frame of {len(frame)} is too large.")
            conversation.receive(frame)
            for event in conversation.events_received():
                self._take(event, len(frame))
            self._wake.set()
            while self._held > HELD_BYTES or self._unsent > UNSENT_MOST:
                self._room = asyncio.Event()
                await self._room.wait()
                self._room = None

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            for frame in self._conversation.data_to_send():
                kind = "text" if isinstance(frame, str) else "bytes"
                self._writes_since = self._rooms.monotonic()
                await self._send({"type": "websocket.send", kind: frame})
            self._writes_since = None
            self._unsent = 0
            self._say_room()
            if self._conversation.close_code is not None:
                raise LinkEnded(self._conversation.close_code, self._conversation.close_reason)

    def _spawn(self, work: Coroutine[Any, Any, None] | None) -> None:
        """Run work for this link, if there is any; what it raises ends the link. An answer may come
        when the link is ending: then nothing is begun any more.
        """
        if work is None:
            return
        if self._group is None:
            raise AssertionError("a link spawns only while it runs")
        try:
            self._group.create_task(work)
        except RuntimeError:  # all that a task group says of itself
            work.close()

    # -- frames from the node ----------------------------------------------------------------

    def _take(self, event: object, size: int) -> None:
        if isinstance(event, messages.Heartbeat):
            self._unsent += 1
            now = self._rooms.clock()
            self._rooms.skewed(self.node, event.clock - now)
            self._conversation.send(messages.Beat(event.sequence, now))
        elif isinstance(event, LogFrame):
            self._take_log(event)
        elif isinstance(event, Observed):
            self._take_observed(event, size)
        elif isinstance(event, messages.StopRefused):
            self._take_refusal(event)
        elif isinstance(event, messages.Inventory):
            # The newest counts; one write is under way at a time.
            if self._inventory is None:
                self._spawn(self._store_inventory())
            self._inventory = event.facts

    def _take_observed(self, observed: Observed, size: int) -> None:
        frames = {}
        for one in observed.attempts:
            tail = self._tails.get(one.attempt)
            ends = any(isinstance(said, Exited | Lost) for said in one.happenings)
            if ends and tail is not None and tail.received > tail.done:
                frames[one.attempt] = tail.received
        self._held += size
        self._waiting.append(_Waiting(observed, frames, size))
        self._release()

    def _release(self) -> bool:
        """Pass on the reports whose log frames are durable, in order; say whether there were."""
        released = False
        while self._waiting:
            first = self._waiting[0]
            for attempt, received in first.frames.items():
                tail = self._tails.get(attempt)
                if tail is not None and tail.done < received:
                    return released
            self._waiting.pop(0)
            self._report(first.observed, first.size)
            released = True
        return released

    def _report(self, observed: Observed, size: int) -> None:
        mentioned = None
        if self._mentioned is not None:
            self._mentioned.update((one.attempt, one.epoch) for one in observed.attempts)
            if len(self._mentioned) > MENTIONED_MOST:
                self.close(messages.CLOSE_TOO_LARGE, "The node mentions too many attempts.")
                return
            if observed.complete:
                mentioned = frozenset(self._mentioned)
                self._mentioned = None
        logs = {}
        for one in observed.attempts:
            tail = self._tails.get(one.attempt)
            if tail is not None:
                logs[one.attempt] = tail.stored()
        report = NodeReport(
            node=self.node,
            link_epoch=self.link_epoch,
            observed=observed.attempts,
            applied=observed.revision,
            mentioned=mentioned,
            logs=logs,
        )
        self._pass_on(report, size)

    def _look(self, attempt: str, tail: LogTail) -> None:
        """An ended attempt's log has reached its promised length."""
        report = NodeReport(
            node=self.node,
            link_epoch=self.link_epoch,
            look=(attempt,),
            logs={attempt: tail.stored()},
        )
        self._pass_on(report, 0)

    def _pass_on(self, report: NodeReport, size: int) -> None:
        """Queue a report; `size` bytes stay held until it is answered."""
        self._unanswered.append(size)
        self._rooms.reports.add(self, report)

    def _take_refusal(self, refusal: messages.StopRefused) -> None:
        if self._refusals < REFUSALS_MOST:
            self._refusals += 1
            self._spawn(self._rooms.alarms.refused(self.node, refusal))

    async def _store_inventory(self) -> None:
        while self._inventory is not None:
            facts, self._inventory = self._inventory, {}
            try:
                await self._rooms.database.write(
                    partial(
                        nodes.inventory, node=self.node, link_epoch=self.link_epoch, facts=facts
                    ),
                    grows=True,
                )
            except LimitExceeded as error:
                self.close(messages.CLOSE_TOO_LARGE, error.detail)
            except StorageFull as error:
                # The node tells it again in some minutes, and the link is worth more.
                _log.warning("an inventory is not stored", node=self.node, error=error.detail)
            if not self._inventory:
                self._inventory = None

    # -- log frames --------------------------------------------------------------------------

    def _take_log(self, frame: LogFrame) -> None:
        tail = self._tails.get(frame.attempt)
        if tail is None:
            self._unsent += 1
            self._conversation.send(messages.Unknown((frame.attempt,)))
            self._spawn(self._rooms.alarms.strange(self.node, (frame.attempt,)))
            return
        if tail.stalled:
            return  # it is asked for again when the store can take it
        if tail.expecting is not None:
            if frame.offset > tail.expecting:
                return  # sent before the node had read our `resend`
            tail.expecting = None
        # What is stored is compressed, also where the node has not this feature.
        body = bytes(frame.body) if frame.zstd else compress(frame.body)
        self._held += len(body)
        tail.received += 1
        self._spawn(self._append(frame._replace(body=body), body, tail))

    async def _append(self, frame: LogFrame, body: bytes, tail: LogTail) -> None:
        try:
            await self._store(frame, body, tail)
        finally:
            tail.done += 1
            self._let_go(len(body))
        promised = self._awaiting.get(frame.attempt)
        if promised is not None and tail.durable >= promised:
            self._look(frame.attempt, tail)
        if not self._release():
            # Else the answer to the report comes at once, and is written together with this.
            self._wake.set()

    async def _store(self, frame: LogFrame, body: bytes, tail: LogTail) -> None:
        try:
            appended = await self._rooms.logs.append(
                self.node, self.link_epoch, tail.segment, frame.attempt, frame.offset, body
            )
        except LogGap as gap:
            if tail.expecting is None:
                tail.restart(gap.length)
                self._conversation.send(messages.Resend(frame.attempt, gap.length))
            return
        except StaleLink as error:
            self.close(messages.CLOSE_NEWER_LINK, error.detail)
            return
        except BadChunk as error:
            self.close(messages.CLOSE_BAD_FRAME, error.detail)
            return
        except LogGone:
            return  # the segment is past its retention: nobody waits for these bytes
        except DatabaseFailed:
            raise
        except FleetwireError as error:
            # The disk is full, or the database is away: the log waits in its spool (P15).
            if not tail.stalled:
                _log.warning("log bytes wait in their spool", node=self.node, error=error.detail)
            tail.stalled = True
            return
        tail.durable = max(tail.durable, appended.length)
        self._conversation.send(messages.Durable(frame.attempt, appended.length))
        try:
            await tail.roll(frame, appended.skipped)
        except BadFrame as error:
            self.close(messages.CLOSE_BAD_FRAME, error.detail)

    def sweep(self) -> bool:
        """End the link where nothing is read, ask again for logs that stalled; say whether the
        level should be read.
        """
        since = self._writes_since
        if since is not None and self._rooms.monotonic() - since > SEND_WITHIN_S:
            self._spawn(_too_slow())
            return False
        stalled = [id_ for id_, tail in self._tails.items() if tail.stalled]
        if stalled and self._group is not None and self._rooms.logs.has_room():
            self._spawn(self._resend(stalled))
        return bool(self._awaiting or self._fenced or self._keeps_back)

    async def _resend(self, ids: list[str]) -> None:
        """Tell the node to send these logs from where they are durable."""
        try:
            pairs = [(self._tails[id_].segment, id_) for id_ in ids if id_ in self._tails]
            lengths = await self._rooms.logs.lengths(pairs)
        except DatabaseFailed:
            raise
        except FleetwireError:
            return  # still not; the next sweep asks again
        for id_, length in lengths.items():
            tail = self._tails.get(id_)
            if tail is not None:
                tail.restart(length)
                self._conversation.send(messages.Resend(id_, length))
        self._wake.set()

    def _let_go(self, size: int) -> None:
        self._held -= size
        self._say_room()

    def _say_room(self) -> None:
        if self._room is not None:
            self._room.set()

    # -- what the node is told ---------------------------------------------------------------

    def answered(self, report: NodeReport, answer: Answer) -> None:
        """Take the answer to a report that is committed now; answers come in order."""
        self._let_go(self._unanswered.pop(0))
        if answer.gone:
            self.close(messages.CLOSE_FORBIDDEN, "This node was deleted.")
            return
        if answer.stale:
            self.close(messages.CLOSE_NEWER_LINK, "A newer link of this node has taken over.")
            return
        if answer.unknown:
            self._conversation.send(messages.Unknown(answer.unknown))
            self._spawn(self._rooms.alarms.strange(self.node, answer.unknown))
        for attempt, promised in answer.awaiting.items():
            self._awaiting[attempt] = promised
            tail = self._tails.get(attempt)
            before = report.logs.get(attempt)
            if tail is None or promised is None or tail.durable < promised:
                continue
            if before is None or before.length < promised:
                self._look(attempt, tail)  # it became complete while the report was committed
        if answer.void:
            self._void(answer)
        if answer.reopened:
            for id_, segment in answer.reopened:
                self._follow_log(id_, segment, 0)
            self._spawn(self._resend([id_ for id_, _ in answer.reopened]))
        if answer.asked:
            # It has no place for a log of these yet: what the node has, it says first.
            self._send_desired(tuple(Wanted(one.attempt, one.epoch, "run") for one in answer.asked))
        if answer.adopted:
            self._spawn(self._follow(answer.adopted))
        if answer.sealed:
            self._sealed(answer.sealed)
        self._wake.set()

    def _void(self, answer: Answer) -> None:
        """Tell what is over. A stop that has to be signed comes with the level, soon."""
        signs = self._conversation.signs_stops
        now = tuple(
            Wanted(id_, epoch, wish)
            for id_, epoch, wish in answer.void
            if not (signs and wish == "stop")
        )
        for one in now:
            self._told.pop(one.attempt, None)
            if one.wish == "forget":
                self._leave_log(one.attempt, one.epoch)
        if now:
            self._send_desired(now)
        if len(now) < len(answer.void):
            self._fenced.update(
                {(id_, epoch): None for id_, epoch, wish in answer.void if wish == "stop"}
            )
            self._rooms.levels.look(self.node)

    async def _follow(self, adopted: tuple[restore.Asked, ...]) -> None:
        """Want the logs of attempts that are this node's from now on."""
        for one in adopted:
            self._follow_log(one.attempt, one.segment, one.epoch)
        self._send_desired(tuple(Wanted(one.attempt, one.epoch, "run") for one in adopted))
        await self._resend([one.attempt for one in adopted])

    def _follow_log(self, attempt: str, segment: str, epoch: int) -> None:
        """Take the attempt's log from now on. What is first heard of now has no bytes yet."""
        tail = self._tails.setdefault(attempt, LogTail(segment, 0, epoch))
        tail.epoch = max(tail.epoch, epoch)

    def _leave_log(self, attempt: str, epoch: int) -> None:
        """Take no more of the log of an attempt that is not this node's any more: it may be
        another's by now. A newer epoch than the one that is over has been told meanwhile.
        """
        tail = self._tails.get(attempt)
        if tail is not None and tail.epoch <= epoch:
            del self._tails[attempt]
            self._awaiting.pop(attempt, None)

    def asks(self) -> Asked:
        """Say what this link has told its node already."""
        awaiting = tuple(self._awaiting)
        return Asked(
            self.link_epoch,
            holds=self._rooms.monotonic() < self._held_until,
            told=self._told,
            awaiting=awaiting,
            confines=CONFINE in self._conversation.features,
            signs=self._conversation.signs_stops,
            fenced=tuple(self._fenced),
        )

    def deliver(self, level: Level) -> None:
        """Tell the node what differs from what it was told."""
        if level.gone:
            self.close(messages.CLOSE_FORBIDDEN, "This node was deleted.")
            return
        if level.stale:
            self.close(messages.CLOSE_NEWER_LINK, "A newer link of this node has taken over.")
            return
        if level.admin in LOCKED_OUT:
            self.close(messages.CLOSE_FORBIDDEN, f"This node is {level.admin} now.")
            return
        for wanted in level.wanted:
            held = level.held[wanted.attempt]
            self._follow_log(wanted.attempt, held.segment, wanted.epoch)
            if wanted.attempt not in level.kept_back:
                self._told[wanted.attempt] = Word(wanted.epoch, wanted.wish, wanted.grace)
        if level.wanted or self._revision != (level.revision, level.admin):
            self._revision = (level.revision, level.admin)
            self._send_desired(level.wanted)
        self._keeps_back = bool(level.kept_back)
        if level.fences:
            for one in level.fences:
                self._fenced.pop((one.attempt, one.epoch), None)
            self._send_desired(level.fences)
        again = [id_ for id_ in level.again if id_ not in self._again]
        if again:
            self._again.update(again)
            self._spawn(self._resend(again))
        if level.sealed:
            self._sealed(level.sealed)
        self._wake.set()

    def _tell_all(self, level: Level, lengths: dict[str, int]) -> None:
        """Tell the whole level, with the length that is durable of each log (law 2)."""
        wanted = []
        for one in level.wanted:
            held = level.held[one.attempt]
            have = lengths.get(one.attempt, 0)
            self._tails[one.attempt] = LogTail(held.segment, have, one.epoch)
            wanted.append(msgspec.structs.replace(one, have=have))
            if held.ended:
                self._awaiting[one.attempt] = held.promised
            elif one.attempt not in level.kept_back:
                self._told[one.attempt] = Word(one.epoch, one.wish, one.grace)
        self._keeps_back = bool(level.kept_back)
        self._revision = (level.revision, level.admin)
        self._send_desired(tuple(wanted))
        self._wake.set()

    def _send_desired(self, wanted: tuple[Wanted, ...]) -> None:
        revision, admin = self._revision or (0, "active")
        self._conversation.send_desired(Desired(revision, admin, wanted))  # type: ignore[arg-type]

    def _sealed(self, ids: tuple[str, ...]) -> None:
        for id_ in ids:
            self._tails.pop(id_, None)
            self._told.pop(id_, None)
            self._awaiting.pop(id_, None)
        if self._fenced:
            self._fenced = {one: None for one in self._fenced if one[0] not in ids}
        self._conversation.send(messages.Sealed(ids))
