"""Reconcile: every combination of what is wanted and what a folder may say."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

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
    observations,
    reconcile,
)
from fleetwire.core.desired import NodeWish, Order, Wanted
from fleetwire.core.dispatch import AdminState
from fleetwire.core.envelopes import Envelope
from fleetwire.core.happenings import Declined, Exited, Lost, NeverStarted, Started
from fleetwire.core.specs import Ping

ID = "0190b7f0-1c2d-7abc-8def-0123456789ab"
ORDER = Order(Ping(), Envelope("c", "n", "r", ID, 1, "ping", "", 0, 0), "k", b"")
EXIT = Exited(9, "exited", 0, None, 1, 1.0, 0, "")


def terms(
    *,
    lease: bool = True,
    admin: AdminState = "active",
    busy: int = 0,
    capacity: int = 5,
    used: int = 0,
    objection: str | None = None,
) -> Terms:
    return Terms(lease, admin, busy, capacity, used, lambda _: objection)


def wanted(wish: NodeWish = "run", epoch: int = 5, *, order: bool = True) -> Wanted:
    return Wanted(ID, epoch, wish, order=ORDER if order and wish == "run" else None)


def folder(**fields: object) -> Folder:
    return msgspec.structs.replace(Folder(attempt=ID), **fields)


def declined(epoch: int) -> Folder:
    return folder(declined_epoch=epoch, declined=Declined(1, "full", final=False))


def test_start_what_is_missing() -> None:
    assert reconcile(wanted(), None, terms()) == Start()
    assert reconcile(wanted(), folder(ordered=5), terms()) == Start()
    assert reconcile(wanted(order=False), None, terms()) == Nothing()


def test_refusals_say_why_and_whether_for_good() -> None:
    assert reconcile(wanted(), None, terms(objection="bad")) == Decline("bad", final=True)
    for refused in (terms(lease=False), terms(admin="draining"), terms(busy=5)):
        action = reconcile(wanted(), None, refused)
        assert isinstance(action, Decline)
        assert not action.final


def test_older_tombstone_does_not_block_a_newer_order() -> None:
    assert reconcile(wanted(epoch=5), declined(4), terms()) == Start()
    assert reconcile(wanted(epoch=5), declined(5), terms()) == Report()
    assert reconcile(wanted(epoch=4), declined(5), terms()) == Report()
    assert reconcile(wanted(epoch=5), folder(stop=4), terms()) == Start()
    assert reconcile(wanted(epoch=5), folder(stop=5), terms()) == Bar()


def test_lost_before_it_began_bars_its_own_epoch_only() -> None:
    failed = folder(ordered=5, lost=Lost(1, "start failed: no"))
    assert reconcile(wanted(epoch=5), failed, terms()) == Report()
    assert reconcile(wanted(epoch=6), failed, terms()) == Start()


def test_epoch_always_blocks() -> None:
    ran = folder(begun=4, exited=EXIT)
    action = reconcile(wanted(epoch=5), ran, terms())
    assert isinstance(action, Decline)
    assert action.final
    assert reconcile(wanted(epoch=4), ran, terms()) == Report()
    assert reconcile(wanted(epoch=4), folder(begun=4, live=True), terms()) == Report()


def test_stop() -> None:
    assert reconcile(wanted("stop"), None, terms()) == Bar()
    assert reconcile(wanted("stop"), folder(ordered=5, live=True), terms()) == Bar()
    assert reconcile(wanted("stop"), folder(begun=5, live=True), terms()) == Stop()
    assert reconcile(wanted("stop", epoch=9), folder(begun=5, live=True), terms()) == Stop()
    assert reconcile(wanted("stop"), folder(begun=5, exited=EXIT), terms()) == Report()
    never = folder(canceled_epoch=5, canceled=NeverStarted(1))
    assert reconcile(wanted("stop"), never, terms()) == Report()
    # Its shim died and nobody has judged it yet: the sweep will.
    assert reconcile(wanted("stop"), folder(begun=5), terms()) == Nothing()


def test_forget_spares_what_lives() -> None:
    assert reconcile(wanted("forget"), None, terms()) == Nothing()
    assert reconcile(wanted("forget"), folder(begun=5, live=True), terms()) == Nothing()
    assert reconcile(wanted("forget"), folder(begun=5), terms()) == Nothing()
    assert reconcile(wanted("forget"), folder(begun=5, exited=EXIT), terms()) == Forget()
    assert reconcile(wanted("forget"), declined(5), terms()) == Forget()


def test_observations() -> None:
    assert observations(folder()) == ()
    assert observations(folder(ordered=5)) == ()
    (live,) = observations(folder(ordered=5, live=True))
    assert (live.epoch, live.happenings) == (5, ())
    (ended,) = observations(folder(begun=5, started=Started(1), exited=EXIT, length=7))
    assert (ended.happenings, ended.length) == ((Started(1), EXIT), 7)
    # An exit beats a `lost`, whoever wrote that.
    (both,) = observations(folder(begun=5, exited=EXIT, lost=Lost(1, "x")))
    assert both.happenings == (EXIT,)
    refused = folder(
        begun=4, exited=EXIT, declined_epoch=5, declined=Declined(1, "ran", final=True)
    )
    assert [o.epoch for o in observations(refused)] == [4, 5]


# The property: a model of a folder, and everything the agent and the shim may do to it.

EPOCHS = st.integers(1, 4)
WISHES = st.sampled_from(["run", "stop", "forget"])
EVENTS = st.one_of(
    st.tuples(st.just("want"), WISHES, EPOCHS),
    st.tuples(st.sampled_from(["begin", "exit", "die", "judge"]), st.none(), st.none()),
)
TERMS = st.builds(
    terms,
    lease=st.booleans(),
    admin=st.sampled_from(["active", "active", "active", "draining"]),
    busy=st.integers(0, 2),
    capacity=st.just(2),
    objection=st.sampled_from([None, None, None, "bad"]),
)


class Model:
    """Plays the disk, the shim and the spawner by the rules of docs/seams.md."""

    def __init__(self) -> None:
        self.folder: Folder | None = None
        self.starts: list[int] = []

    def change(self, **fields: object) -> None:
        self.folder = msgspec.structs.replace(self.folder or Folder(attempt=ID), **fields)

    def do(self, action: Action, epoch: int) -> None:
        match action:
            case Start():
                assert self.folder is None or not (self.folder.live or self.folder.begun)
                self.folder = Folder(attempt=ID, live=True, ordered=epoch)
            case Decline():
                self.change(
                    declined_epoch=epoch, declined=Declined(1, action.reason, final=action.final)
                )
            case Bar():
                self.change(stop=epoch)
                if not (self.folder and self.folder.live):
                    self.change(canceled_epoch=epoch, canceled=NeverStarted(1))
            case Stop():
                self.change(live=False, exited=EXIT)
            case Forget():
                assert self.folder is not None
                assert not self.folder.busy
                self.folder = None

    def happen(self, event: str) -> None:
        have = self.folder
        if have is None:
            return
        if event == "begin" and have.live and have.begun is None and have.ordered is not None:
            if have.stop >= have.ordered:
                self.change(live=False, canceled_epoch=have.ordered, canceled=NeverStarted(1))
            else:
                self.starts.append(have.ordered)
                self.change(begun=have.ordered, started=Started(1))
        elif event == "exit" and have.live and have.begun is not None:
            self.change(live=False, exited=EXIT)
        elif event == "die" and have.live:
            self.change(live=False)
        elif event == "judge" and have.begun is not None and not have.live and not have.ended:
            self.change(lost=Lost(1, "shim died"))


@given(st.lists(st.tuples(EVENTS, TERMS), max_size=40))
def test_never_twice_never_a_living_one_forgotten(
    steps: list[tuple[tuple[str, NodeWish | None, int | None], Terms]],
) -> None:
    model = Model()
    forgotten = False
    for (event, wish, epoch), now in steps:
        if event != "want":
            model.happen(event)
            continue
        assert wish is not None
        assert epoch is not None
        before = model.folder
        action = reconcile(wanted(wish, epoch), model.folder, now)
        if isinstance(action, Start):
            assert wish == "run"
            assert now.lease_holds
            assert now.admin == "active"
            assert now.busy < now.capacity
            assert before is None or before.barred < epoch
        if wish == "run":
            assert not isinstance(action, Stop | Forget)
        if isinstance(action, Forget):
            forgotten = True
        model.do(action, epoch)
        # Doing it and asking again comes to rest.
        again = reconcile(wanted(wish, epoch), model.folder, now)
        assert isinstance(again, Nothing | Report | Bar) or again == action == Stop()
        if model.folder is not None:
            for observation in observations(model.folder):
                assert observation.epoch >= 0
    assert len(model.starts) <= 1 or forgotten


def test_an_epoch_whose_folder_has_gone_does_not_begin_again() -> None:
    action = reconcile(wanted(epoch=5), None, terms(used=5))
    assert isinstance(action, Decline)
    assert not action.final  # an honest server gives it a new epoch
    assert isinstance(reconcile(wanted(epoch=6), None, terms(used=5)), Start)
