"""Planted faults: each is one small change of the product's own code, as a slip of the pen or a
shortcut would make it. `test_mutants` shows that the simulation finds every one of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from fleetwire.agent import attempts as agent_attempts
from fleetwire.agent import roster as agent_roster
from fleetwire.agent.lease import Lease
from fleetwire.agent.roster import Roster
from fleetwire.core import attempts as core_attempts
from fleetwire.core.attempts import Applied
from fleetwire.core.happenings import Exited
from fleetwire.protocol.credit import Credit
from fleetwire.protocol.messages import Durable
from fleetwire.server.domain import attempts, cluster, desired, dispatch, nodes, restore, runs
from fleetwire.server.durable.errors import CommitUnknown
from fleetwire.server.durable.groupcommit import GroupCommit
from fleetwire.server.gateway.link import Link
from fleetwire.server.logs import store as log_store
from fleetwire.server.logs.backend import Extent, Row
from fleetwire.server.store import engine
from fleetwire.shim import records
from fleetwire.shim.frames import Frame
from fleetwire.testing.simulation import restore as simulated_restore
from fleetwire.testing.simulation import shim as simulated_shim

Patch = pytest.MonkeyPatch


@dataclasses.dataclass(frozen=True)
class Mutant:
    """`plant` changes the code. `plan` changes the plan of each seed to where such a fault shows;
    within `seeds` worlds a violation has to come.
    """

    name: str
    plant: Callable[[Patch], None]
    plan: dict[str, Any] = dataclasses.field(default_factory=dict)
    seeds: int = 60


MUTANTS: list[Mutant] = []


def mutant(**facts: Any) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """Add a mutant, named by the function that plants it."""

    def add(plant: Callable[[Patch], None]) -> Callable[[Patch], None]:
        MUTANTS.append(Mutant(plant.__name__, plant, **facts))
        return plant

    return add


COMMITS = {"commit_faults": 0.15}
NETWORK = {"faults": frozenset({"cut", "drop", "stall", "kill agent"}), "pause_s": 0.2}
POWER = {
    "faults": frozenset({"lose power", "lose power at write", "cut", "kill server"}),
    "pause_s": 0.3,
}
QUIET = {"faults": frozenset({"cut"}), "commit_faults": 0.0, "doubling": 0.0}


# -- commits ---------------------------------------------------------------------------------


@mutant(plan=COMMITS)
def acknowledge_before_commit(patch: Patch) -> None:
    run_one = engine.Database._run_one

    def eager(self: Any, work: Any, done: Any) -> Any:
        ran = run_one(self, work, done)
        for entry in self._writer.under_way:
            if entry.work is work and ran.error is None:
                entry.future.set_result(ran.result)
        return ran

    commit_group = engine.Database._commit_group

    def remember(self: Any, group: Any) -> None:
        self._writer.under_way = group.members
        commit_group(self, group)

    patch.setattr(engine.Database, "_run_one", eager)
    patch.setattr(engine.Database, "_commit_group", remember)


@mutant(plan=COMMITS)
def a_failed_commit_is_acknowledged(patch: Patch) -> None:
    run_group = GroupCommit._run_group

    def forgiving(self: Any, group: Any) -> bool:
        patch_fail = group.fail
        group.fail = lambda error: None if isinstance(error, CommitUnknown) else patch_fail(error)
        return run_group(self, group)

    patch.setattr(GroupCommit, "_run_group", forgiving)


@mutant()
def nudge_before_commit(patch: Patch) -> None:
    run_use_cases = engine.Database._run_use_cases

    def hasty(self: Any, connection: Any, group: Any) -> Any:
        commit = self._shell.commit

        def nudge_and_commit(to: Any) -> None:
            for topic in list(done_topics):
                self._nudges.send(topic)
            commit(to)

        done_topics: dict[str, None] = {}
        take = engine._Done.take

        def note(done: Any, tx: Any) -> None:
            take(done, tx)
            done_topics.update(done.topics)

        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(engine._Done, "take", note)
            inner.setattr(self._shell, "commit", nudge_and_commit)
            return run_use_cases(self, connection, group)

    patch.setattr(engine.Database, "_run_use_cases", hasty)


@mutant(plan={"commit_faults": 0.4, "fates": ("unknown",), "runs": 8}, seeds=80)
def an_unknown_commit_is_tried_again(patch: Patch) -> None:
    write = engine.Database.write

    async def stubborn(self: Any, use_case: Any) -> Any:
        while True:
            try:
                return await write(self, use_case)
            except CommitUnknown:
                continue

    patch.setattr(engine.Database, "write", stubborn)


@mutant(plan=COMMITS)
def a_log_is_called_durable_before_its_commit(patch: Patch) -> None:
    store = Link._store

    async def early(self: Any, frame: Any, body: bytes, tail: Any) -> None:
        end = max(tail.durable, frame.offset + 1)
        self._conversation.send(_durable(frame.attempt, end))
        self._wake.set()
        await store(self, frame, body, tail)

    patch.setattr(Link, "_store", early)


def _durable(attempt: str, length: int) -> Any:
    return Durable(attempt, length)


# -- epochs and starts -----------------------------------------------------------------------


@mutant(plan=QUIET)
def a_link_of_the_same_epoch_is_stale_for_the_log_store(patch: Patch) -> None:
    append = log_store._Plan.append

    def at_least(self: Any, work: Any) -> int:
        if work.link_epoch <= self._links.get(work.node, -1):
            raise log_store.StaleLink(work.node, work.link_epoch)
        return append(self, work)

    patch.setattr(log_store._Plan, "append", at_least)


@mutant()
def epochs_are_given_twice(patch: Patch) -> None:
    def forgetful(tx: Any, count: int) -> Any:
        now = cluster.generation(tx)
        return cluster.EpochBlock(now, 7, count)

    patch.setattr(cluster, "reserve_epochs", forgetful)


@mutant()
def an_order_is_sent_before_it_counts_as_offered(patch: Patch) -> None:
    patch.setattr(desired, "offer", lambda attempt: Applied(attempt, None))


@mutant(plan=NETWORK, seeds=120)
def what_was_offered_is_given_back(patch: Patch) -> None:
    def generous(attempt: Any, why: str) -> Applied:
        if attempt.state != "assigned":
            return Applied(attempt, None)
        return core_attempts._back_to_pending(attempt, why)

    patch.setattr(nodes, "give_back", generous)
    patch.setattr(attempts, "core_give_back", generous)
    found = attempts.attempts.never_offered
    live = attempts.attempts.past_lost_after

    def too_many(connection: Any, limit: int) -> list[str]:
        return found(connection, limit) + live(connection, 2**60, limit)

    patch.setattr(attempts.attempts, "never_offered", too_many)


@mutant(plan=POWER, seeds=200)
def an_epoch_is_not_durable_before_exec(patch: Patch) -> None:
    def lazy(directory: int, name: str, value: Any) -> bool:
        try:
            records._write(
                directory, name, records._encode(value), records._WRITE | records.os.O_EXCL,
                sync=False,
            )  # fmt: skip
        except FileExistsError:
            return False
        return True

    patch.setattr(simulated_shim, "create_record_at", lazy)


@mutant(
    plan={"faults": frozenset({"freeze agent"}), "pause_s": 1.0, "busy_s": 40.0, "runs": 12},
    seeds=150,
)
def a_lease_counts_from_receipt(patch: Patch) -> None:
    renew, grant = Lease.renew, Lease.grant

    def renew_now(self: Any, *, sent_at: float, server_clock: int) -> None:
        del sent_at
        renew(self, sent_at=self._clock(), server_clock=server_clock)

    def grant_now(self: Any, *, sent_at: float, lease_s: float, server_clock: int) -> None:
        del sent_at
        grant(self, sent_at=self._clock(), lease_s=lease_s, server_clock=server_clock)

    patch.setattr(Lease, "renew", renew_now)
    patch.setattr(Lease, "grant", grant_now)


@mutant(plan={"faults": frozenset({"drain", "cut", "drop"}), "pause_s": 0.2}, seeds=200)
def a_draining_node_starts_what_was_offered(patch: Patch) -> None:
    start = agent_attempts._start

    def careless(wanted: Any, terms: Any) -> Any:
        return start(wanted, msgspec.structs.replace(terms, admin="active"))

    patch.setattr(agent_attempts, "_start", careless)


@mutant(plan={"faults": frozenset({"drain", "slow", "stall"}), "pause_s": 0.2}, seeds=200)
def a_drain_needs_no_confirmation(patch: Patch) -> None:
    def unconfirmed(tx: Any) -> int:
        ready = list(nodes.nodes.silences(tx.connection))
        links = nodes.nodes.links(tx.connection, [row.id for row in ready])
        draining = [link for link in links.values() if link.admin == "draining"]
        for link in draining:
            nodes.nodes.change(tx.connection, link.id, admin="drained")
        return len(draining)

    patch.setattr(attempts.node_cases, "confirm_drains", unconfirmed)


# -- stops and ends --------------------------------------------------------------------------


@mutant(plan=NETWORK)
def absence_is_taken_as_stop(patch: Patch) -> None:
    apply = Roster.apply

    def presumptuous(self: Any, level: Any) -> None:
        mentioned = {wanted.attempt for wanted in level.attempts}
        for entry in list(self._entries.values()):
            if entry.attempt not in mentioned and entry.wanted is not None and entry.folder.live:
                entry.wanted = msgspec.structs.replace(entry.wanted, wish="stop", order=None)
                self._shims.stop(entry)
        apply(self, level)

    patch.setattr(Roster, "apply", presumptuous)


@mutant()
def a_stop_cancels_at_once(patch: Patch) -> None:
    def hasty(attempt: Any, why: str) -> Applied:
        if core_attempts.is_final(attempt) or attempt.wish == "stop":
            return Applied(attempt, None)
        return Applied(core_attempts._canceled(attempt, why), "canceled")

    patch.setattr(runs, "wish_stop", hasty)


@mutant(plan=POWER, seeds=120)
def a_late_exit_changes_the_outcome(patch: Patch) -> None:
    apply = core_attempts.apply

    def revising(attempt: Any, epoch: int, happening: Any) -> Applied:
        if attempt.state == "exited" and isinstance(happening, Exited):
            changed = msgspec.structs.replace(attempt, outcome="failed", exit=happening)
            return Applied(changed, None)
        return apply(attempt, epoch, happening)

    patch.setattr(attempts, "apply", revising)


@mutant(plan=NETWORK)
def a_silent_node_loses_its_attempts(patch: Patch) -> None:
    write_links = nodes.write_links

    def giving_up(tx: Any, noticed: Any) -> None:
        write_links(tx, noticed)
        changes = nodes.Changes(tx)
        for node, state in noticed.states.items():
            if state != "online":
                held = nodes.attempts.live_of_node(tx.connection, node)
                changes.take(held)
                for row in held:
                    changes.apply(core_attempts.declare_lost(row.attempt, "offline"))
        changes.flush()

    patch.setattr(nodes, "write_links", giving_up)


@mutant(plan={**NETWORK, "drop_nudges": True}, seeds=120)
def what_is_not_mentioned_yet_is_lost(patch: Patch) -> None:
    def conclude(self: Any, mentioned: frozenset[tuple[str, int]]) -> None:
        held = attempts.attempts.unsettled_of_node(self.changes.tx.connection, self.link.id)
        self.changes.take(held)
        for row in (self.changes[one.id] for one in held):
            one = row.attempt
            if (one.id, one.epoch) not in mentioned and one.state != "pending":
                self.changes.apply(attempts.declare_lost(one, attempts.SPOOL_GONE))
                self.changes.alter(row.id, log_state="gone")

    patch.setattr(attempts._Taking, "_conclude", conclude)


# -- output ----------------------------------------------------------------------------------


@mutant(plan={**NETWORK, "credit": 6000})
def a_frame_is_cut_one_byte_too_early(patch: Patch) -> None:
    cut = Frame.cut

    def off_by_one(self: Frame, offset: int) -> Frame:
        part = cut(self, max(offset - 1, self.offset))
        return part._replace(
            offset=offset, payload=bytes(part.payload)[: self.offset + len(self.payload) - offset]
        )

    patch.setattr(Frame, "cut", off_by_one)


@mutant(plan=NETWORK)
def the_server_s_length_is_one_too_long(patch: Patch) -> None:
    rewind = Credit.rewind
    patch.setattr(Credit, "rewind", lambda self, a, length: rewind(self, a, length + bool(length)))


@mutant(plan={"commit_s": 0.2, "commit_faults": 0.3, "fates": ("refused",), "chatty": True})
def a_gap_is_appended(patch: Patch) -> None:
    append = log_store._Plan.append

    def blind(self: Any, work: Any) -> int:
        extent = self._extent(work.address)
        if work.offset > extent.length:
            self._extents[work.address] = Extent(work.offset, extent.newlines, extent.is_open)
        return append(self, work)

    patch.setattr(log_store._Plan, "append", blind)


@mutant(plan={**NETWORK, "doubling": 0.1})
def what_is_stored_already_is_stored_again(patch: Patch) -> None:
    def twice(self: Any, work: Any) -> int:
        extent = self._extent(work.address)
        if work.offset > extent.length:
            raise log_store.LogGap(extent.length)
        body = log_store.chunks.decode(work.body)
        row = Row(extent.length, body.length, 0, 0, 0, work.body)
        self.rows.append((work.address, row))
        longer = Extent(extent.length + body.length, 0, False)
        self._extents[work.address] = self.changed[work.address] = longer
        return longer.length

    patch.setattr(log_store._Plan, "append", twice)


@mutant(plan=NETWORK)
def a_seal_does_not_wait_for_the_log_s_commit(patch: Patch) -> None:
    def trusting(self: Any, row: Any) -> None:
        ended = row.attempt.exit
        if ended is not None and row.log_state == "open":
            self.changes.settle(row.id, "sealed", ended.length, ended.sha256)
        self._sealed.append(row.id)

    patch.setattr(attempts._Taking, "_settle", trusting)


@mutant()
def received_counts_as_stored(patch: Patch) -> None:
    take_log = Link._take_log

    def optimistic(self: Any, frame: Any) -> None:
        take_log(self, frame)
        tail = self._tails.get(frame.attempt)
        if tail is not None:
            self._conversation.send(Durable(frame.attempt, frame.offset + 1))

    patch.setattr(Link, "_take_log", optimistic)


@mutant(plan=NETWORK, seeds=120)
def the_spool_is_trimmed_ahead_of_the_server(patch: Patch) -> None:
    durable = Roster.durable
    patch.setattr(Roster, "durable", lambda self, a, length: durable(self, a, length + 4096))


@mutant(plan=NETWORK)
def what_an_older_link_was_told_counts_as_told(patch: Patch) -> None:
    def silent(self: Any) -> None:
        self.wake = agent_roster._nothing
        self.readable.clear()
        self.unreported.clear()

    observe = Roster.observe

    def only_news(self: Any) -> Any:
        told = {entry.attempt for entry in self._entries.values() if entry.reported}
        return tuple(one for one in observe(self) if one.attempt not in told)

    patch.setattr(Roster, "disconnected", silent)
    patch.setattr(Roster, "observe", only_news)


# -- restores --------------------------------------------------------------------------------

RESTORES = {"restores": True, "faults": frozenset({"cut"}), "pause_s": 0.4}


@mutant(plan=RESTORES, seeds=80)
def what_waits_in_a_restored_record_is_started_at_once(patch: Patch) -> None:
    for room in (dispatch, desired, restore):
        patch.setattr(room, "held", lambda *_: None)


@mutant(plan=RESTORES, seeds=80)
def a_restored_record_is_not_known_to_be_one(patch: Patch) -> None:
    patch.setattr(simulated_restore.restore, "begin_doubt", lambda _tx: 0)


@mutant(plan={**RESTORES, **POWER}, seeds=120)
def a_spool_s_beginning_is_not_told(patch: Patch) -> None:
    patch.setattr(attempts._Taking, "_note_beginning", lambda _self, row, _begins: row)


# -- sweeps ----------------------------------------------------------------------------------


@mutant(plan={"drop_nudges": True, **QUIET}, seeds=20)
def nobody_sweeps_the_links(patch: Patch) -> None:
    def nobody(connection: Any) -> set[str]:
        del connection
        return set()

    patch.setattr(desired, "nodes_to_tell", nobody)


@mutant(plan={"drop_nudges": True, **QUIET}, seeds=20)
def the_dispatch_loop_trusts_its_nudges(patch: Patch) -> None:
    def idle(*given: Any, **more: Any) -> Any:
        del given, more
        return dispatch.Rounded(0, 0, 0, 0, more=False, page_end="")

    patch.setattr(dispatch, "round_", idle)


@mutant(plan=COMMITS)
def an_idempotency_key_is_not_looked_up(patch: Patch) -> None:
    patch.setattr(runs, "_held", lambda _tx, _submissions: {})
