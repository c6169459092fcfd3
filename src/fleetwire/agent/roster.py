"""The attempts on this node: what their folders say, what the server wants, and what is done.

The roster is level-triggered. Events (a record appeared, the server said something, a shim died)
only mean *look again*; the look reads the folder and `attempts.reconcile` says what to do. Ended
and sealed attempts leave the roster for the cleaner.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from fleetwire.agent import folders
from fleetwire.agent import level as levels
from fleetwire.agent.attempts import (
    Action,
    Bar,
    Decline,
    Folder,
    Forget,
    Nothing,
    Report,
    Start,
    Stop,
    Terms,
    reconcile,
)
from fleetwire.agent.cleaner import Cleaner
from fleetwire.agent.disk import Disk
from fleetwire.agent.entry import Entry
from fleetwire.agent.folders import Places
from fleetwire.agent.lease import Lease
from fleetwire.agent.level import Level, takes_starts
from fleetwire.agent.policy import LocalPolicy
from fleetwire.agent.reserve import Reserve
from fleetwire.agent.shims import Shims
from fleetwire.agent.spawner import SpawnerLine
from fleetwire.agent.starter import Starter
from fleetwire.agent.starts import Starts
from fleetwire.agent.status import Status
from fleetwire.agent.stops import Stops
from fleetwire.core import limits
from fleetwire.core.desired import Desired, Observation, Wanted
from fleetwire.core.leases import generation_of
from fleetwire.shim.spool import is_locked

_LAST: Final = frozenset({"exit", "lost", "canceled"})
_RECORDS: Final = _LAST | {"started"}
# The first bytes after a silence leave at once; what follows soon after gathers so long.
_COALESCE_S: Final = 0.005
_SWEEP_S: Final = 1.0
# A spawner buries its own shims at once; only when it is dead as well the agent does it.
_PATIENCE: Final = 2

_log = logging.getLogger(__name__)


class Roster:
    """One per agent. `wall`: microseconds since 1970. `wake` is called when there is something
    to send; the link in force sets it.
    """

    def __init__(  # each argument is one thing it works on
        self,
        places: Places,
        *,
        capacity: int,
        starter: Starter,
        stops: Stops,
        spawner: SpawnerLine,
        cleaner: Cleaner,
        lease: Lease,
        status: Status,
        wall: Callable[[], int],
        reserve: Reserve,
        policy: LocalPolicy,
    ) -> None:
        self._policy = policy
        self._places = places
        self._capacity = capacity
        self._starter = starter
        self.stops = stops
        self._cleaner = cleaner
        cleaner.used = self._forget_folder_of
        self._lease = lease
        self._status = status
        self._wall = wall
        self._entries: dict[str, Entry] = {}
        self._busy: set[str] = set()
        self._written: dict[str, bool] = {}
        # What could not be written, for want of disk: each sweep decides anew.
        self._put_off: set[str] = set()
        self._settled_at = 0.0
        self._settling: asyncio.Handle | None = None
        self._swept: asyncio.TimerHandle | None = None
        self._shims = Shims(starter.quota, self.look)
        self.level = levels.load(places.state)
        self._applied = 0
        self.wake: Callable[[], None] = _nothing
        self.watch_add: Callable[[str, str], None] = _no_watch
        self.watch_remove: Callable[[str], None] = _nothing_of
        # For the uploader: attempts whose log may have more, in turn; attempts to report.
        self.readable: dict[str, None] = {}
        self.unreported: dict[str, None] = {}
        self.disk = Disk(reserve, starter.quota)
        self._starts = Starts(self, starter, spawner, self.disk)

    # The start.

    def scan(self) -> None:
        """Read every folder: what the agent before us left. Blocks."""
        for attempt in self._places.attempts():
            path = self._places.spool(attempt)
            if os.path.exists(os.path.join(path, "sealed")):
                self._cleaner.keep(attempt)
                continue
            entry = self._entries[attempt] = Entry(attempt, path)
            entry.folder = folders.load(path, reader=entry.reader)
            if entry.folder.busy:
                self._busy.add(attempt)

    def begin(self, group: asyncio.TaskGroup) -> None:
        """Watch and sweep from now on; `group` holds what takes time."""
        self._shims.begin(group)
        self._starts.begin(group)
        for attempt in self._busy:
            self.watch_add(attempt, self._places.spool(attempt))
        if self._entries:
            _log.info("adopted %d attempts, %d live", len(self._entries), len(self._busy))
        self._say()
        self._sweep_later()

    # What the link and the uploader ask.

    @property
    def busy(self) -> int:
        """How many attempts take a place."""
        return len(self._busy)

    @property
    def capacity(self) -> int:
        """How many attempts there are places for: what is configured, or less by the policy."""
        return self._policy.capacity(self._capacity)

    @property
    def applied(self) -> int:
        """The revision of Desired that may be confirmed. One that allows no start is confirmed
        only once no start is under way: after it there is none (promise P12).
        """
        starting = any(self._entries[attempt].folder.begun is None for attempt in self._busy)
        if takes_starts(self.level.admin) or not starting:
            self._applied = self.level.revision
        return self._applied

    def entry(self, attempt: str) -> Entry | None:
        """Return an attempt that is here and not sealed."""
        return self._entries.get(attempt)

    def observe(self) -> tuple[Observation, ...]:
        """Return all that the node can say, and count it as reported."""
        found: list[Observation] = []
        self.unreported.clear()
        for entry in self._entries.values():
            entry.reported = entry.observations()
            found += entry.reported
        return tuple(found)

    def disconnected(self) -> None:
        """The link is gone: nothing counts as said, and nobody says where to send from."""
        self.wake = _nothing
        self.readable.clear()
        self.unreported.clear()
        for entry in self._entries.values():
            entry.reported = None

    # What the server says.

    def trust(self, server_keys: Mapping[str, bytes], *, signed_stops: bool) -> None:
        """Take orders signed by these keys, and by no others, from now on; with `signed_stops`
        that goes for stops too.
        """
        self._starter.trust(server_keys)
        self.stops.trust(server_keys, signed=signed_stops)

    def apply(self, desired: Desired) -> None:
        """Take the server's level or a delta of it. A drain is durable before anything else
        happens (architecture 5.13).
        """
        self._remember(desired)
        if desired.attempts:
            self._policy.look()  # how many may run at once
        starts: list[Entry] = []
        for wanted in desired.attempts:
            self._want(wanted, starts)
        self._launch(starts)
        self._say()

    def sealed(self, attempts: Iterable[str]) -> None:
        """The server has everything of these: their folders may go, after a while."""
        for attempt in attempts:
            entry = self._entries.get(attempt)
            if entry is None:
                continue
            if entry.folder.busy:
                _log.error("the server calls %s sealed, but it lives: kept", attempt)
                continue
            if os.path.isdir(entry.path):
                entry.reader.trim(entry.folder.length)  # one piece is left at most
            self._drop(entry)
            log_bytes = min(entry.folder.length, limits.PIECE_BYTES)
            self._cleaner.seal(attempt, log_bytes=log_bytes)

    def asked_below(self, entry: Entry, begins: int) -> None:
        """The server asked for log bytes below `begins`, which were trimmed: it called them
        durable, and was restored since. It has to know before anything else of the log comes.
        """
        entry.asked_below = begins
        self.unreported[entry.attempt] = None

    def wall(self) -> int:
        """Return the node's wall time, microseconds since 1970."""
        return self._wall()

    def unknown(self, attempts: Iterable[str]) -> None:
        """The server holds no such attempts of ours. That is no order to delete (law 1)."""
        for attempt in attempts:
            self.readable.pop(attempt, None)
            _log.warning("the server does not know %s; its folder is kept", attempt)

    def durable(self, attempt: str, length: int) -> None:
        """The server has the log up to here: what lies below may go.

        Once it has ended nothing is trimmed before the seal: should its hash not fit at the
        server, the log can be fetched again from where the end said that it begins (5.7).
        """
        entry = self._entries.get(attempt)
        if entry is None or entry.folder.ended or length < 1:
            return
        freed = entry.reader.trim(length) if os.path.isdir(entry.path) else 0
        if freed and entry.folder.busy:
            self._shims.trimmed(entry)

    # What the watch says.

    def written(self, attempt: str, name: str) -> None:
        """Something was written in the attempt's folder; an empty name: look at all of it."""
        record = name in _RECORDS or not name
        log = name.startswith(folders.LOG_PREFIX)
        if not record and not log:
            return
        if log or not name:
            self.readable[attempt] = None
        self._written[attempt] = self._written.get(attempt, False) or record
        # An end is reported at once, and so is the first output after a silence.
        if name in _LAST:
            self._settle_within(0.0)
        elif log:
            since = asyncio.get_running_loop().time() - self._settled_at
            self._settle_within(0.0 if since >= _COALESCE_S else _COALESCE_S)
        else:
            self._settle_within(_COALESCE_S)

    def _settle_within(self, delay_s: float) -> None:
        if self._settling is not None:
            if delay_s or not isinstance(self._settling, asyncio.TimerHandle):
                return
            self._settling.cancel()
        loop = asyncio.get_running_loop()
        if delay_s:
            self._settling = loop.call_later(delay_s, self._settle)
        else:
            self._settling = loop.call_soon(self._settle)

    def _settle(self) -> None:
        self._settling = None
        self._settled_at = asyncio.get_running_loop().time()
        written, self._written = self._written, {}
        for attempt, record in written.items():
            entry = self._entries.get(attempt)
            if entry is None:
                self.readable.pop(attempt, None)
            elif record:
                self.look(entry)
                self._shims.stop(entry)  # should it have begun to listen just now
        self.wake()

    # Deciding and doing.

    def _want(self, wanted: Wanted, starts: list[Entry]) -> None:
        entry = self._entries.get(wanted.attempt)
        if wanted.wish == "stop" and (why := self._stop_objection(entry, wanted)) is not None:
            self.stops.refuse(wanted, why, at=self._wall())
            return
        if entry is None and self._cleaner.has(wanted.attempt):
            if wanted.wish == "forget":
                self._cleaner.forget(wanted.attempt)
                return
            entry = self._reopen(wanted.attempt)
        self._act(entry, wanted, starts)
        entry = self._entries.get(wanted.attempt)
        if entry is not None:
            entry.wanted = wanted
            # Before it has begun there is nothing, and the watch tells when there is. It may also
            # have begun, and ended, while no link was there and the spawner's answer is under way.
            if not entry.asked or entry.folder.begun is not None:
                self.readable[wanted.attempt] = None

    def _stop_objection(self, entry: Entry | None, wanted: Wanted) -> str | None:
        """Say why a stop is not to be carried out, or None. What is refused leaves no trace: nor
        does it take the place of what the server said before.
        """
        have = None if entry is None or entry.folder.ended else entry.folder
        if have is None:
            return self.stops.objection(wanted, None)
        return self.stops.objection(wanted, have.ordered if have.begun is None else have.begun)

    def _act(self, entry: Entry | None, wanted: Wanted, starts: list[Entry]) -> None:
        if self._cleaner.deletes(wanted.attempt):
            self._wait_for_cleaner(entry, wanted)
            return
        action = reconcile(wanted, entry.folder if entry else None, self._terms())
        if isinstance(action, Nothing) or (entry is None and isinstance(action, Report)):
            return
        if entry is None:
            entry = self._entries[wanted.attempt] = Entry(
                wanted.attempt, self._places.spool(wanted.attempt)
            )
        if isinstance(action, Start):
            try:
                self._take_place(entry, wanted)
            except OSError as error:
                action = Decline(f"the node cannot write: {error.strerror}", final=False)
            else:
                starts.append(entry)
                return
        self._do(entry, wanted, action)

    def _wait_for_cleaner(self, entry: Entry | None, wanted: Wanted) -> None:
        """It was forgotten, and is wanted again before its old folder is gone: what began now
        would be deleted with that. The sweep decides anew.
        """
        if entry is None:
            if wanted.wish == "forget":
                return
            entry = self._entries[wanted.attempt] = Entry(
                wanted.attempt, self._places.spool(wanted.attempt)
            )
        entry.wanted = wanted
        self._put_off.add(entry.attempt)
        self._sweep_later()

    def _do(self, entry: Entry, wanted: Wanted, action: Action) -> None:
        match action:
            case Decline(reason=reason, final=final):
                self.decline(entry, wanted.epoch, reason, final=final)
            case Bar():
                try:
                    self.disk.write(lambda: folders.bar(entry.path, wanted.epoch, self._wall()))
                except OSError as error:
                    self._put_it_off(entry, f"the stop of {entry.attempt}", error)
                    return
                self.look(entry)
                if entry.folder.busy:  # a shim was faster: it has begun, or will find `stop`
                    entry.wanted = wanted
                    self._shims.stop(entry)
            case Stop():
                entry.wanted = wanted
                self._shims.stop(entry)
            case Report():
                entry.reported = None
                self._report(entry)
            case Forget():
                self._drop(entry)
                self._cleaner.forget(entry.attempt)
            case _:
                raise AssertionError(f"{action} is done elsewhere")

    def _terms(self) -> Terms:
        return Terms(
            lease_holds=self._lease.holds(),
            admin=self.level.admin,
            busy=len(self._busy),
            capacity=self.capacity,
            used=self.level.used,
            objection=self._starter.objection,
        )

    def _take_place(self, entry: Entry, wanted: Wanted) -> None:
        """From here on it counts as live, until its folder or the spawner says otherwise."""
        generation = generation_of(wanted.epoch)
        if generation > self.level.generation:
            # The hello names it from now on (5.4), so it is durable before it counts.
            self._save(msgspec.structs.replace(self.level, generation=generation))
        entry.wanted = wanted
        entry.asked = True
        self.put(entry, Folder(attempt=entry.attempt, live=True, ordered=wanted.epoch))

    def _launch(self, starts: list[Entry]) -> None:
        if starts:
            self._starts.launch(starts)
            self._sweep_later()

    def again(self, entry: Entry) -> None:
        """Nothing of it has begun and no shim is there: decide anew."""
        if entry.wanted is None:
            return
        starts: list[Entry] = []
        self._act(entry, entry.wanted, starts)
        self._launch(starts)

    def decline(self, entry: Entry, epoch: int, reason: str, *, final: bool) -> None:
        """Refuse a start durably; tried again by each sweep where that cannot be written."""
        reason = reason[: limits.REASON_CHARS]
        try:
            self.disk.write(
                lambda: folders.decline(entry.path, epoch, reason, final=final, at=self._wall())
            )
        except OSError as error:
            # Not durable, so not reported; and no shim was asked for, so it takes no place.
            off = entry.attempt in self._put_off
            self.put(entry, Folder(attempt=entry.attempt, ordered=epoch))
            self._put_it_off(entry, f"the refusal of {entry.attempt} ({reason})", error, again=off)
            return
        _log.info("declined %s: %s", entry.attempt, reason)
        self.look(entry)

    def _put_it_off(self, entry: Entry, what: str, error: OSError, *, again: bool = False) -> None:
        """The disk is full, most likely: said once, tried again by each sweep (P16)."""
        if not again and entry.attempt not in self._put_off:
            _log.error("%s cannot be written: %s; it is tried again", what, error.strerror)
        self._put_off.add(entry.attempt)
        self._sweep_later()

    def _reopen(self, attempt: str) -> Entry | None:
        """A server that was restored asks for what it once had: it may have it again."""
        self._cleaner.give_back(attempt)
        path = self._places.spool(attempt)
        if not os.path.isdir(path):
            return None
        folders.unmark_sealed(path)
        entry = self._entries[attempt] = Entry(attempt, path)
        entry.folder = folders.load(path, reader=entry.reader)
        return entry

    # Looking.

    def look(self, entry: Entry) -> None:
        """Read the folder again, and note what has changed."""
        try:
            folder = folders.load(entry.path, reader=entry.reader)
        except FileNotFoundError:
            if entry.folder.busy and not entry.asked:
                self._shims.bury(entry)  # somebody deleted it, and a task may live on
                return
            folder = Folder(attempt=entry.attempt)
        if entry.asked and not folder.ended and not folder.live and folder.barred < 0:
            folder = Folder(
                attempt=entry.attempt, live=True, ordered=folder.ordered, begun=folder.begun
            )
        self.put(entry, folder)

    def put(self, entry: Entry, folder: Folder) -> None:
        """Take what the folder says now, with all that follows from it."""
        before, entry.folder = entry.folder, folder
        attempt = entry.attempt
        self._put_off.discard(attempt)
        if folder.busy:
            if attempt not in self._busy:
                self._busy.add(attempt)
                if not entry.asked:  # else when its folder is there
                    self.watch_add(attempt, entry.path)
        elif attempt in self._busy:
            self._busy.discard(attempt)
            self.watch_remove(attempt)
        if folder.ended or folder.barred >= 0:
            self._starter.withdraw(attempt)
        if folder.ended and not before.ended:
            entry.ended_at = asyncio.get_running_loop().time()
            if folder.length:
                self.readable[attempt] = None
        if entry.observations() != entry.reported:
            self._report(entry)

    def _report(self, entry: Entry) -> None:
        self.unreported[entry.attempt] = None
        self.wake()

    def _drop(self, entry: Entry) -> None:
        self._entries.pop(entry.attempt, None)
        self._put_off.discard(entry.attempt)
        self._busy.discard(entry.attempt)
        self.readable.pop(entry.attempt, None)
        self.unreported.pop(entry.attempt, None)
        self.watch_remove(entry.attempt)
        entry.reader.close()

    # The sweep: what no event tells.

    def _sweep_later(self) -> None:
        if self._swept is None and (self._busy or self._unsettled()):
            self._swept = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)

    def _unsettled(self) -> bool:
        return any(not entry.folder.ended for entry in self._entries.values())

    def _sweep(self) -> None:
        self._swept = None
        for attempt in list(self._busy):
            entry = self._entries[attempt]
            if entry.asked:
                continue
            if not os.path.isdir(entry.path):
                self.look(entry)
                continue
            if is_locked(entry.path):
                entry.unlocked = 0
                self._shims.stop(entry)
                self.readable[attempt] = None  # in case an event was lost
                continue
            self.look(entry)
            if entry.folder.ended or entry.folder.barred >= 0:
                continue
            entry.unlocked += 1
            if entry.folder.begun is None:
                self.put(entry, Folder(attempt=attempt, ordered=entry.folder.ordered))
                self.again(entry)
            elif entry.unlocked >= _PATIENCE:
                self._shims.bury(entry)
        for attempt in sorted(self._put_off):
            self.again(self._entries[attempt])
        self.disk.look(len(self._busy))
        self._shims.share_quota([self._entries[attempt] for attempt in self._busy])
        self._clean_tombstones()
        self._say()
        self.wake()
        self._sweep_later()

    def _clean_tombstones(self) -> None:
        """A tombstone that the server was told of needs not be kept for ever: should the server
        have lost the word, it asks again, and the answer is found anew.
        """
        limit = self._wall() - int(limits.SEALED_KEEP_S * 1_000_000)
        for entry in list(self._entries.values()):
            folder = entry.folder
            if folder.busy or folder.ended or folder.begun is not None or not entry.reported:
                continue
            newest = folder.declined or folder.canceled
            if newest is not None and newest.at < limit:
                self._drop(entry)
                self._cleaner.forget(entry.attempt)

    def _remember(self, desired: Desired) -> None:
        if desired.revision == self.level.revision and desired.admin == self.level.admin:
            return
        new = msgspec.structs.replace(self.level, revision=desired.revision, admin=desired.admin)
        if desired.admin != self.level.admin:
            _log.info("the server says that this node is %s", desired.admin)
            try:
                self._save(new)
            except OSError as error:
                # Not durable, so neither in force nor confirmed: the server says it again.
                _log.error("that cannot be written: %s", error.strerror)
        else:
            # The same administrator's word under a later number: the durable one says as much.
            self.level = new
        self.wake()

    def _forget_folder_of(self, epoch: int) -> None:
        """The folders that tell what began up to this epoch are going."""
        if epoch <= self.level.used:
            return
        new = msgspec.structs.replace(self.level, used=epoch)
        try:
            self._save(new)
        except OSError as error:
            # Folders go all the same, or the disk stays full; it holds until the agent ends.
            _log.error("the newest epoch that was used cannot be written: %s", error.strerror)
            self.level = new

    def _save(self, new: Level) -> None:
        self.disk.write(lambda: levels.save(self._places.state, new))
        self.level = new

    def _say(self) -> None:
        kept = len(self._entries) - len(self._busy)
        admin = "" if self.level.admin == "active" else f"; the node is {self.level.admin}"
        self._status.say(
            "attempts",
            f"{len(self._busy)} of {self.capacity} places taken, "
            f"{kept} ended and not sealed{admin}",
        )
        standing = self._policy.standing
        self._status.say("policy", standing.problem or standing.state)
        self._status.say("disk", self.disk.full or "has room for starts")


def _nothing() -> None:
    return


def _nothing_of(attempt: str) -> None:  # noqa: ARG001 (stands in for a watch)
    return


def _no_watch(attempt: str, path: str) -> None:  # noqa: ARG001 (stands in for a watch)
    return
