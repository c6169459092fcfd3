"""Sends what the spools hold and what the folders say, over one link, within its credit.

Offset is the server's length (law 2): where to send from stands in the conversation's credit,
which the server's own words set. Attempts take turns, a chunk each. The end of an attempt leaves
in the same turn as the last bytes of its log, after them.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import zstandard

from fleetwire.agent import chunks
from fleetwire.agent.channel import Channel
from fleetwire.agent.entry import Entry
from fleetwire.agent.roster import Roster
from fleetwire.core.desired import Observation, Observed
from fleetwire.core.dispatch import AdminState
from fleetwire.protocol.conversation import AgentConversation
from fleetwire.protocol.versions import ZSTD
from fleetwire.shim.frames import GAP, MAX_GAP, MAX_PAYLOAD
from fleetwire.shim.spool import Frame, SpoolTrimmed

# An end waits this long for the last bytes of its log to go before it; then it goes alone, so
# that a long backlog does not hide that the task is over.
_HOLD_S: Final = 1.0
_CONFIRM_S: Final = 0.25
_log = logging.getLogger(__name__)


class Uploader:
    """One per open link."""

    def __init__(self, roster: Roster, conversation: AgentConversation, channel: Channel) -> None:
        self._roster = roster
        self._conversation = conversation
        self._channel = channel
        self._wake = asyncio.Event()
        self._confirmed: tuple[int, AdminState] | None = None
        self._confirming: asyncio.TimerHandle | None = None
        # Made per link and let go with it: an idle agent holds no compressor.
        self._zstd = zstandard.ZstdCompressor(level=1)

    def wake(self) -> None:
        """There may be something to send."""
        self._wake.set()

    async def run(self) -> None:
        """Send whatever there is, for ever. Cancelling loses nothing."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self.turn():  # noqa: ASYNC110 (it waits for nobody: it gives others a turn)
                await asyncio.sleep(0)
            if not self._channel.writable:
                await self._channel.wait_writable()
                self._wake.set()

    def turn(self) -> bool:
        """Send one chunk of each attempt that has one, and then what is to be reported. True:
        there is more, and it may go.
        """
        more = self._send_logs()
        self._send_observations()
        self._channel.send(self._conversation.data_to_send())
        return more and self._channel.writable

    def _send_logs(self) -> bool:
        more = False
        compresses = ZSTD in self._conversation.features
        readable = self._roster.readable
        for attempt in list(readable):
            if not self._channel.writable:
                return False
            entry = self._roster.entry(attempt)
            position = self._conversation.credit.position(attempt)
            if entry is None or position is None:
                # Not ours to send yet: the server's word on it makes it readable again.
                readable.pop(attempt, None)
                continue
            if entry.folder.ended and position >= entry.folder.length:
                readable.pop(attempt, None)  # all of it was sent: no need to look at the disk
                continue
            room = self._room()
            if room == 0:
                return False  # an acknowledgement wakes us
            frames = self._read(entry, position, room)
            if not frames:
                readable.pop(attempt, None)
                continue
            for chunk in chunks.pack(frames):
                body = self._zstd.compress(chunk.body) if compresses else chunk.body
                self._conversation.send_log(attempt, chunk.offset, chunk.end, len(chunk.body), body)
            # To the end of the queue: everyone has a turn.
            readable.pop(attempt)
            readable[attempt] = None
            more = True
        return more

    def _room(self) -> int:
        """Return how many payload bytes may be read now, 0 to wait for credit. What is read is
        sent: a reader that has to go back a frame walks its piece from the start.
        """
        credit = self._conversation.credit
        if credit.free >= MAX_PAYLOAD:
            return min(credit.free, chunks.PAYLOAD_BYTES)
        return credit.free if credit.free == credit.limit else 0

    def _read(self, entry: Entry, position: int, room: int) -> list[Frame]:
        try:
            frames = entry.reader.read(position, room)
        except SpoolTrimmed as error:
            return self._read_trimmed(entry, position, error)
        except FileNotFoundError:
            return []
        if frames and len(frames[0].payload) > room:
            first = frames[0]  # less credit than a frame has: a part of it
            return [first._replace(payload=first.payload[:room])]
        return frames

    def _read_trimmed(self, entry: Entry, position: int, error: SpoolTrimmed) -> list[Frame]:
        """The server asks for what it once called durable, and we do not have it any more. First
        it is told where the spool begins; then a gap stands for what is missing.
        """
        if not entry.has_told_beginning(error.first):
            _log.error("%s cannot be sent from %d: %s", entry.attempt, position, error)
            self._roster.asked_below(entry, error.first)
            return []
        gap = min(error.first - position, MAX_GAP)
        return [Frame(GAP, self._roster.wall(), position, b"", gap)]

    def _send_observations(self) -> None:
        report: list[Observation] = []
        for attempt in list(self._roster.unreported):
            entry = self._roster.entry(attempt)
            if entry is None:
                self._roster.unreported.pop(attempt)
                continue
            if self._holds_back(entry):
                continue
            self._roster.unreported.pop(attempt)
            now = entry.observations()
            if now != entry.reported:
                entry.reported = now
                if entry.asked_below:  # now that this is said, its log may go on
                    self._roster.readable[entry.attempt] = None
                    self.wake()
                # That a shim is about to begin is of interest in a complete report only, but
                # where a spool begins has to be known before a gap comes.
                report += [one for one in now if one.happenings or one.begins]
        revision, admin = self._roster.applied, self._roster.level.admin
        if report or self._confirms_now(revision, admin):
            self.confirmed(revision, admin)
            self._conversation.send_observed(Observed(revision, tuple(report)))

    def _confirms_now(self, revision: int, admin: AdminState) -> bool:
        """Whether a revision is to be confirmed by a frame of its own: at once where it changes
        what the node may do, else only when no report has taken it along for a while.
        """
        if self._confirmed == (revision, admin):
            return False
        if self._confirmed is None or self._confirmed[1] != admin:
            return True
        if self._confirming is None:
            loop = asyncio.get_running_loop()
            self._confirming = loop.call_later(_CONFIRM_S, self.wake)
            return False
        return self._confirming.when() <= asyncio.get_running_loop().time()

    def _holds_back(self, entry: Entry) -> bool:
        """Whether the attempt's end should wait for the rest of its log."""
        if not entry.folder.ended:
            return False
        position = self._conversation.credit.position(entry.attempt)
        if position is None or position >= entry.folder.length:
            return False
        loop = asyncio.get_running_loop()
        left = entry.ended_at + _HOLD_S - loop.time()
        if left <= 0:
            return False
        loop.call_later(left, self.wake)
        return True

    def confirmed(self, revision: int, admin: AdminState) -> None:
        """A report has named this revision."""
        self._confirmed = (revision, admin)
        if self._confirming is not None:
            self._confirming.cancel()
            self._confirming = None
