"""What to do about one attempt: the pure middle of the agent.

    what the server wants (Wanted)  +  what the folder says (Folder)  +  Terms  ->  an Action

                       no `epoch`                          `epoch` is there
              ┌──────────────────────────┐        ┌─────────────────────────────┐
    run       │ Start, or Decline        │        │ nothing / Report / Decline   │
    stop      │ Bar (tombstone)          │        │ Stop while it lives / Report │
    forget    │ Forget                   │        │ Forget once it has ended     │
    (absent)  │ nothing                  │        │ nothing                      │
              └──────────────────────────┘        └─────────────────────────────┘

Laws: an attempt is started at most once, whatever its epoch (law 6): an `epoch` file always
blocks. An older epoch's tombstone does not block a newer order. Absence never stops and never
deletes (law 1), which is why there is no function here that takes the whole of Desired. A living
attempt is never forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from fleetwire.core.desired import Observation, Wanted
from fleetwire.core.dispatch import AdminState
from fleetwire.core.happenings import Declined, Exited, Happening, Lost, NeverStarted, Started


class Folder(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt's folder as it stands. Fields are the records of docs/seams.md, section 1.

    `live`: a shim holds the lock, or the spawner has just been asked for one.
    `begun`: the epoch in `epoch`, None while there is none. `ordered`: the epoch in `order`.
    `length`: how much of the log can be read; `begins`: from where on, once it has ended.
    """

    attempt: str
    live: bool = False
    ordered: int | None = None
    begun: int | None = None
    started: Started | None = None
    exited: Exited | None = None
    lost: Lost | None = None
    declined_epoch: int = -1
    declined: Declined | None = None
    canceled_epoch: int = -1
    canceled: NeverStarted | None = None
    stop: int = -1
    sealed: bool = False
    length: int = 0
    begins: int = 0

    @property
    def ended(self) -> bool:
        """Whether its record is final: nothing more will happen here."""
        return self.exited is not None or self.lost is not None

    @property
    def busy(self) -> bool:
        """Whether it takes one of the node's places."""
        return not self.ended and (self.live or self.begun is not None)

    @property
    def barred(self) -> int:
        """The newest epoch that will never start here, by a tombstone; -1 for none."""
        return max(self.declined_epoch, self.canceled_epoch)


class Terms(msgspec.Struct, frozen=True):
    """What decides over a start, now. `used` is that of `level.Level`; `objection` checks an
    order's signature and what it binds, and says what is wrong with it.
    """

    lease_holds: bool
    admin: AdminState
    busy: int
    capacity: int
    used: int
    objection: Callable[[Wanted], str | None]


class Start(msgspec.Struct, frozen=True):
    """Prepare its folders and ask the spawner."""


class Decline(msgspec.Struct, frozen=True):
    """Write `declined` durably, then report it. `final`: no other try can help."""

    reason: str
    final: bool


class Bar(msgspec.Struct, frozen=True):
    """It has not begun and must not: write `stop`, and `canceled` if the lock can be had."""


class Stop(msgspec.Struct, frozen=True):
    """It lives: tell its shim."""


class Report(msgspec.Struct, frozen=True):
    """The server seems not to know what the folder says: say it again."""


class Forget(msgspec.Struct, frozen=True):
    """The folder may go."""


class Nothing(msgspec.Struct, frozen=True):
    """All is as wanted, or time will tell."""


Action: TypeAlias = Start | Decline | Bar | Stop | Report | Forget | Nothing


def reconcile(wanted: Wanted, folder: Folder | None, terms: Terms) -> Action:
    """Say what brings this attempt nearer to what is wanted. Doing it and asking again ends in
    Nothing or Report.
    """
    have = folder or Folder(attempt=wanted.attempt)
    if wanted.wish == "forget":
        return Nothing() if folder is None or have.busy else Forget()
    if have.begun is not None or _ended_as(wanted, have):
        return _begun(wanted, have)
    if wanted.wish == "stop":
        return Report() if have.canceled_epoch >= wanted.epoch else Bar()
    if have.live:
        return Nothing()
    if have.barred >= wanted.epoch:
        return Report()
    if have.stop >= wanted.epoch:
        return Bar()
    return _start(wanted, terms)


def _ended_as(wanted: Wanted, have: Folder) -> bool:
    # `lost` without `epoch` (start failed): nothing of it ever ran, so it speaks for the epoch
    # it was ordered with and bars no newer one.
    return have.ended and (have.ordered is None or wanted.epoch <= have.ordered)


def _begun(wanted: Wanted, have: Folder) -> Action:
    offered = wanted.order is not None and wanted.wish == "run"
    if offered and have.begun is not None and max(have.begun, have.barred) < wanted.epoch:
        # A server whose database was restored may offer again what already ran (P26).
        return Decline(f"it already started here, under epoch {have.begun}", final=True)
    if have.ended:
        return Report()
    if wanted.wish == "stop" and have.live:
        # Whatever its epoch: to stop is always safe, and the node of an old epoch ends it (P3).
        return Stop()
    return Report() if wanted.order is not None else Nothing()


def _start(wanted: Wanted, terms: Terms) -> Action:
    if wanted.order is None:
        return Nothing()
    if (why := terms.objection(wanted)) is not None:
        return Decline(why, final=True)
    if wanted.epoch <= terms.used:
        # A new order has a new epoch: an honest server loses nothing by it.
        return Decline("an order of so long ago may have been carried out before", final=False)
    if terms.admin != "active":
        return Decline(f"the node is {terms.admin}", final=False)
    if not terms.lease_holds:
        return Decline("the node's lease has run out: the order came too late", final=False)
    if terms.busy >= terms.capacity:
        return Decline(
            f"the node is full: {terms.busy} of {terms.capacity} places are taken", final=False
        )
    return Start()


def observations(folder: Folder, *, asked_below: int = 0) -> tuple[Observation, ...]:
    """Return all that the folder can say: usually one observation, a second one where another
    epoch than the one that began was declined or canceled, none while nothing has happened.

    `asked_below`: the server has asked for log bytes below this, where the spool begins.
    """
    found: list[Observation] = []
    epoch = folder.begun if folder.begun is not None else folder.ordered
    if epoch is not None and (folder.begun is not None or folder.ended or folder.live):
        happenings: list[Happening] = []
        if folder.started is not None:
            happenings.append(folder.started)
        if folder.exited is not None:
            happenings.append(folder.exited)
        elif folder.lost is not None:
            happenings.append(folder.lost)
        length = folder.length if folder.ended else 0
        begins = max(folder.begins, asked_below)
        found.append(Observation(folder.attempt, epoch, tuple(happenings), length, begins))
    if folder.declined is not None and folder.declined_epoch > folder.canceled_epoch:
        found.append(Observation(folder.attempt, folder.declined_epoch, (folder.declined,)))
    elif folder.canceled is not None:
        found.append(Observation(folder.attempt, folder.canceled_epoch, (folder.canceled,)))
    return tuple(found)
