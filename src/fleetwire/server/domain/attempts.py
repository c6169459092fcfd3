"""What nodes report of their attempts, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from fleetwire.core.attempts import (
    FINAL,
    SPOOL_GONE,
    adopt,
    apply,
    declare_lost,
    describe,
    may_adopt,
    signals,
)
from fleetwire.core.attempts import give_back as core_give_back
from fleetwire.core.desired import NodeWish, Observation
from fleetwire.core.happenings import Declined, Exited, Lost, NeverStarted, Started
from fleetwire.core.restore import is_foreign
from fleetwire.server.domain import cluster, restore, stops
from fleetwire.server.domain import nodes as node_cases
from fleetwire.server.domain.changes import EMPTY_SHA256, Changes
from fleetwire.server.domain.restore import Asked
from fleetwire.server.store import Connection, attempts, decisions, nodes, runs
from fleetwire.server.store.attempts import SETTLED, AttemptRow, Progress
from fleetwire.server.store.engine import Tx
from fleetwire.server.store.nodes import LinkRow

DECLINED_WAIT_US: Final = 1_000_000
DECLINED_LONGEST_US: Final = 60_000_000


class Stored(NamedTuple):
    """What a link knows of a log: its durable length, and the SHA-256 (hex) of exactly these
    bytes where the link has seen them all, else None.
    """

    length: int
    sha256: str | None


class NodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """One link's word.

    `logs` has what the link knows of the logs of the attempts in it. `mentioned` is set with
    the last frame of a complete report: (attempt, epoch) of everything that the node has said
    on this link so far. `look` names attempts whose log has grown to its promised length.
    """

    node: str
    link_epoch: int
    observed: tuple[Observation, ...] = ()
    applied: int = 0
    mentioned: frozenset[tuple[str, int]] | None = None
    logs: Mapping[str, Stored] = {}
    look: tuple[str, ...] = ()


class Answer(msgspec.Struct, frozen=True):
    """What to tell the link, once this is committed.

    `stale`: a newer link has won, or the node was deleted (`gone`); nothing else is set then.
    `awaiting` are ended attempts whose log is not complete, with the length that the node
    promised. `void` are (attempt, epoch, wish) of assignments that are over: `stop` what runs,
    `forget` the folder of what does not. `reopened` are (attempt, segment) of logs that had been
    given up, and whose node has come back with an end: to be sent from what is stored. `asked` and
    `adopted` come after a restore (P26): what the node is asked for although it did not mention
    it, and what it was found to have begun, whose log is wanted from now on.
    """

    stale: bool = False
    gone: bool = False
    unknown: tuple[str, ...] = ()
    sealed: tuple[str, ...] = ()
    awaiting: dict[str, int | None] = {}
    void: tuple[tuple[str, int, NodeWish], ...] = ()
    reopened: tuple[tuple[str, str], ...] = ()
    asked: tuple[Asked, ...] = ()
    adopted: tuple[Asked, ...] = ()


def report(tx: Tx, reports: Sequence[NodeReport]) -> list[Answer]:
    """Take the words of several links together; return the answer to each, in order.

    A report of an older link changes nothing (5.6). What does not belong to the link's node is
    answered `unknown` and not stored.
    """
    links = nodes.links(tx.connection, {one.node for one in reports})
    fresh = [_is_fresh(one, links.get(one.node)) for one in reports]
    changes = Changes(tx)
    changes.load(
        id_
        for one, is_fresh in zip(reports, fresh, strict=True)
        if is_fresh
        for id_ in (*(observation.attempt for observation in one.observed), *one.look)
    )
    answers = []
    sealing = False
    for one, is_fresh in zip(reports, fresh, strict=True):
        if not is_fresh:
            answers.append(Answer(stale=True, gone=one.node not in links))
            continue
        taking = _Taking(changes, one, links[one.node])
        answers.append(taking.take())
        sealing = sealing or taking.sealing
    changes.flush()
    if sealing:
        tx.nudge("sealing")
    return answers


def _is_fresh(report_: NodeReport, link: LinkRow | None) -> bool:
    return link is not None and link.link_epoch == report_.link_epoch


class _Taking:
    """One link's report, taken observation by observation."""

    def __init__(self, changes: Changes, report_: NodeReport, link: LinkRow) -> None:
        self.changes = changes
        self.report = report_
        self.link = link
        self.sealing = False
        self._unknown: list[str] = []
        self._sealed: list[str] = []
        self._awaiting: dict[str, int | None] = {}
        self._void: list[tuple[str, int, NodeWish]] = []
        self._reopened: list[tuple[str, str]] = []
        self._asked: tuple[Asked, ...] = ()
        self._adopted: list[Asked] = []

    def take(self) -> Answer:
        """Take it; return the answer."""
        for observation in self.report.observed:
            self._observe(observation)
        for attempt in self.report.look:
            row = self.changes.get(attempt)
            if row is not None and row.attempt.node == self.link.id:
                self._settle(row)
        if self.report.mentioned is not None:
            self._conclude(self.report.mentioned)
        if self.link.applied < self.report.applied <= self.link.revision:
            tx = self.changes.tx
            nodes.change(tx.connection, self.link.id, applied=self.report.applied)
            tx.nudge("nodes")
        return Answer(
            unknown=tuple(self._unknown),
            sealed=tuple(self._sealed),
            awaiting=self._awaiting,
            void=tuple(self._void),
            reopened=tuple(self._reopened),
            asked=self._asked,
            adopted=tuple(self._adopted),
        )

    def _observe(self, observation: Observation) -> None:
        row = self.changes.get(observation.attempt)
        if row is None:
            self._unknown.append(observation.attempt)
            return
        if observation.epoch == 0 and row.attempt.node == self.link.id:
            # A power loss tore `epoch` and `order` on the node: it cannot say which one began, but
            # nothing of this attempt will start there any more (law 6), whichever it was.
            observation = msgspec.structs.replace(observation, epoch=row.attempt.epoch)
        if self._began_since_the_backup(row, observation):
            row = self._adopt(row, observation.epoch)
        if row.attempt.node != self.link.id or observation.epoch != row.attempt.epoch:
            self._old_epoch(row, observation)
            return
        row = self._note_beginning(row, observation.begins)
        for happening in observation.happenings:
            if isinstance(happening, Exited) and row.attempt.exit is None:
                self._tell_signals(row, happening)
            row = self.changes.apply(
                apply(row.attempt, observation.epoch, happening), node=self.link.id
            )
            if isinstance(happening, Lost) and row.log_state == "open":
                row = self.changes.alter(row.id, log_length=observation.length)
            elif isinstance(happening, Exited) and row.log_state == "open":
                row = self._expect_no_more(row, observation.length)
        if row.attempt.state == "pending":
            # Declined: the order is void, and so is what the node keeps of it.
            self._back_off(row)
            self._void.append((row.id, observation.epoch, "forget"))
        elif row.attempt.state == "lost" and not _has_ended(observation):
            # Given up, and yet it runs: its end will be kept as the late exit (5.5). Where another
            # attempt has taken its place, or somebody wished so, it is to stop now (P3).
            if row.attempt.wish == "stop":
                self._stop(row, observation.epoch)
        elif row.attempt.state in FINAL:
            late = row.attempt.late_exit
            if late is not None and row.log_state == "missing":
                row = self.changes.alter(row.id, log_state="open", log_length=late.length)
                self._reopened.append((row.id, row.segment))
            self._settle(row)

    def _tell_signals(self, row: AttemptRow, exited: Exited) -> None:
        """Tell with which signals it was ended; the node says so once, with the end."""
        if row.attempt.late_exit is None:
            for text in signals(exited):
                self.changes.tell(row, text, node=self.link.id)

    def _note_beginning(self, row: AttemptRow, begins: int) -> AttemptRow:
        """A spool that begins above what is stored leaves a hole: the server had the bytes and
        was restored since. A node trims only what was called durable, so nothing else does.
        """
        if begins > row.log_begins:
            row = self.changes.alter(row.id, log_begins=begins)
        stored = self.report.logs.get(row.id)
        # The log of what this node was never given by this record is looked up only now.
        length = 0 if stored is None else stored.length
        if length < row.log_begins and row.log_hole is None and row.log_state in {"open", "again"}:
            row = self.changes.alter(row.id, log_hole=length)
            self.changes.tell(
                row,
                f"the log is missing from byte {length} to byte {row.log_begins}: it is not "
                "stored here any more, and the node's spool begins there",
            )
        return row

    def _began_since_the_backup(self, row: AttemptRow, observation: Observation) -> bool:
        """Say whether the node began this under an epoch that a later life of this record gave."""
        one, epoch = row.attempt, observation.epoch
        if not may_adopt(one) or (one.node == self.link.id and epoch == one.epoch):
            return False
        if one.node not in {None, self.link.id} and one.offered:
            return False  # another node may have begun it too: that one is the record's
        if any(isinstance(said, Declined | NeverStarted) for said in observation.happenings):
            return False
        return self._is_foreign(row, epoch)

    def _is_foreign(self, row: AttemptRow, epoch: int) -> bool:
        """Say whether the epoch is none of this record's, and yet can be one of its cluster's."""
        if row.target not in {None, self.link.id}:
            return False
        tx = self.changes.tx
        if not is_foreign(epoch, cluster.generation(tx)):
            return False
        return not decisions.was_given(tx.connection, row.id, self.link.id, epoch)

    def _adopt(self, row: AttemptRow, epoch: int) -> AttemptRow:
        tx = self.changes.tx
        request = runs.requests(tx.connection, [row.run_id])[row.run_id]
        patience = request.spec.timeout + request.spec.grace + request.lost_after
        self.changes.apply(adopt(row.attempt, node=self.link.id, epoch=epoch))
        self._adopted.append(Asked(row.id, epoch, row.segment))
        return self.changes.alter(
            row.id,
            incarnation=self.link.incarnation,
            assigned_at=tx.now,
            lost_after=tx.now + round(patience * 1e6),
            log_state="open" if row.log_state in {"gone", "missing"} else row.log_state,
        )

    def _expect_no_more(self, row: AttemptRow, readable: int) -> AttemptRow:
        """A spool that was damaged gives less than its `exit` promises: what cannot be read there
        will never come, and a run must not wait for it.
        """
        exited = row.attempt.exit
        stored = self.report.logs.get(row.id)
        there = max(readable, 0 if stored is None else stored.length)
        if exited is None or there >= exited.length:
            return row
        return self.changes.alter(row.id, log_length=there)

    def _back_off(self, row: AttemptRow) -> None:
        """Do not ask again at once: each time twice as late, up to a minute."""
        wait = min(DECLINED_WAIT_US << min(row.declines, 10), DECLINED_LONGEST_US)
        self.changes.alter(row.id, declines=row.declines + 1, not_before=self.changes.tx.now + wait)

    def _old_epoch(self, row: AttemptRow, observation: Observation) -> None:
        """A word about an assignment that is over: evidence, kept once, which changes nothing."""
        tx = self.changes.tx
        node = self.link.id
        was_given = decisions.was_given(tx.connection, row.id, node, observation.epoch)
        if not was_given and not self._is_foreign(row, observation.epoch):
            self._unknown.append(row.id)
            return
        known = self.changes.told(row.id, node) if observation.happenings else set()
        for happening in observation.happenings:
            text = f"kept as evidence: {describe(happening)}, of epoch {observation.epoch}"
            if text not in known:
                self.changes.tell(row, text, node=node, epoch=observation.epoch)
        lives = any(isinstance(one, Started) for one in observation.happenings)
        ended = any(isinstance(one, Exited | Lost) for one in observation.happenings)
        if lives and not ended:
            self._stop(row, observation.epoch)
        elif row.attempt.node != node or row.attempt.state == "pending":
            # Where the node has it under its true epoch as well, its folder is not to go.
            self._void.append((row.id, observation.epoch, "forget"))

    def _stop(self, row: AttemptRow, epoch: int) -> None:
        """Have the node stop what runs there under an assignment that is over."""
        stops.fence(self.changes.tx, row, self.link.id, epoch)
        self._void.append((row.id, epoch, "stop"))

    def _settle(self, row: AttemptRow) -> None:
        """Seal the log where all of it is known to be durable; else say what is waited for."""
        if row.log_state in SETTLED:
            self._sealed.append(row.id)
            return
        if row.attempt.exit is not None and row.log_length is None:
            row = self.changes.alter(row.id, log_length=row.attempt.exit.length)
        stored = self.report.logs.get(row.id)
        promised = row.log_length
        if stored is None or promised is None or stored.length < promised:
            self._awaiting[row.id] = promised
            return
        sha256 = EMPTY_SHA256 if stored.length == 0 else stored.sha256
        said = hash_said(row.attempt.exit, row.attempt.late_exit)
        if said is None and row.log_hole is None:
            said = sha256
        if stored.length == promised and sha256 is not None and sha256 == said:
            self.changes.settle(row.id, "sealed", promised, sha256)
            self._sealed.append(row.id)
            return
        # The hash is not known here, or it does not fit: the sealing loop reads the store.
        self._awaiting[row.id] = promised
        self.sealing = True

    def _conclude(self, mentioned: frozenset[tuple[str, int]]) -> None:
        """What a complete report does not mention is not there any more (5.3).

        Only of what has started: an order that was lost on its way is simply told again. A
        running attempt that started on this link was mentioned on this link.
        """
        held = attempts.unsettled_of_node(self.changes.tx.connection, self.link.id)
        self.changes.take(held)
        begun = [
            row
            for row in (self.changes[one.id] for one in held)
            if row.attempt.state not in {"pending", "assigned"}
        ]
        heard = restore.heard(
            self.changes,
            self.link.id,
            mentioned=frozenset(attempt for attempt, _ in mentioned),
            begun=[row.id for row in begun],
        )
        self._asked = heard.asked
        for row in begun:
            one = row.attempt
            if (one.id, one.epoch) in mentioned or one.id in heard.spared:
                continue
            after = self.changes.apply(declare_lost(one, SPOOL_GONE))
            if after.log_state in {"open", "again"}:
                self.changes.alter(row.id, log_state="gone")
                self.sealing = True


def _has_ended(observation: Observation) -> bool:
    return any(not isinstance(one, Started) for one in observation.happenings)


def ended_unsettled(connection: Connection, *, after: str, limit: int) -> list[Progress]:
    """Return one page of ended attempts whose log is not settled, by id."""
    return attempts.ended_unsettled(connection, after=after, limit=limit)


def settle(tx: Tx, measured: Mapping[str, Stored]) -> None:
    """Settle logs by what the store holds: length, and SHA-256 where it was worth computing.

    Sealed where all promised bytes are there and the hash fits (5.7). Where it does not, the
    log is wanted `again`: the caller has reset it. What came again and still does not fit, or
    cannot come again because the node has trimmed it, is damaged; what the node no longer has is
    missing.
    """
    changes = Changes(tx)
    changes.load(measured)
    for attempt, stored in measured.items():
        row = changes.get(attempt)
        if row is None or row.log_state in SETTLED or row.attempt.state not in FINAL:
            continue
        _settle_by_store(changes, row, stored)
        tx.nudge(f"node:{row.attempt.node}")
        tx.nudge(f"log:{attempt}")
    changes.flush()


def settle_deleted(tx: Tx, ids: Sequence[str]) -> None:
    """Settle logs whose segment was deleted (5.10): an end that came later than that is kept as
    the late exit, and its output has no place any more.
    """
    changes = Changes(tx)
    changes.load(ids)
    for attempt in ids:
        row = changes.get(attempt)
        if row is None or row.log_state in SETTLED or row.attempt.state not in FINAL:
            continue
        changes.settle(row.id, "missing", 0, None)
        changes.tell(row, "its log is missing: the logs of its day are past their retention")
        tx.nudge(f"node:{row.attempt.node}")
        tx.nudge(f"log:{attempt}")
    changes.flush()


def hash_said(exited: Exited | None, late: Exited | None) -> str | None:
    """Return the SHA-256 that the node said its log has, or None if it could not say."""
    said = exited or late
    return None if said is None else said.sha256


def fits(promised: int | None, said: str | None, stored: Stored) -> bool:
    """Say whether the stored log is what the node promised."""
    return stored.length == promised and (said is None or stored.sha256 == said)


def is_cut(promised: int | None, exited: Exited | None) -> bool:
    """Say whether the node can give less of the log than its exit says there was."""
    return exited is not None and promised is not None and promised < exited.length


def _settle_by_store(changes: Changes, row: AttemptRow, stored: Stored) -> None:
    said = hash_said(row.attempt.exit, row.attempt.late_exit)
    promised = row.log_length
    length, sha256 = stored
    # A lost attempt's node says no hash, and the length alone does not show what a hole lacks.
    is_proven = said is not None or row.log_hole is None
    if sha256 is not None and fits(promised, said, stored) and is_proven:
        changes.settle(row.id, "sealed", length, sha256)
    elif row.log_hole is not None and promised is not None and length >= promised:
        changes.settle(row.id, "missing", length, sha256)  # from where to where is told already
    elif (cut := row.attempt.exit) and is_cut(promised, cut):
        if fits(cut.length, said, stored):
            changes.settle(row.id, "sealed", length, sha256)
        elif promised is not None and length >= promised:
            changes.settle(row.id, "missing", length, sha256)
            changes.tell(
                row,
                f"the log is missing from byte {length} to byte {cut.length}: "
                "the node's spool is damaged there",
            )
    elif row.log_state == "gone" and (promised is None or length < promised):
        changes.settle(row.id, "missing", length, sha256)
        until = "its end" if promised is None else f"byte {promised}"
        changes.tell(row, f"the log is missing from byte {length} to {until}")
    elif promised is None or (length < promised and row.log_state != "gone"):
        return  # more is still to come
    elif said is None:
        # Power loss on the node: its spool is a prefix of what is stored (5.8).
        changes.settle(row.id, "damaged", length, sha256)
        changes.tell(
            row,
            f"the log is damaged: {length} bytes are stored, but the node has only {promised}",
        )
    elif row.log_state == "open" and not row.log_begins:
        changes.alter(row.id, log_state="again")
        changes.tell(row, f"the log's SHA-256 is {sha256}, not {said}: it is fetched once more")
    else:
        changes.settle(row.id, "damaged", length, sha256)
        changes.tell(
            row,
            f"the log is damaged: stored are {length} bytes with SHA-256 {sha256}, "
            f"the node says {promised} bytes with {said}",
        )


class Swept(NamedTuple):
    """How many attempts a sweep has ended or given back, and whether nothing waits for its end,
    so that time alone changes nothing.
    """

    ended: int
    nothing_waits: bool


def sweep(tx: Tx, limit: int) -> Swept:
    """End or give back what can wait no longer.

    Queue deadlines, `lost_after`, orders never offered to nodes that cannot take them, nodes
    that were deleted (5.5).
    """
    changes = Changes(tx)
    connection = tx.connection
    past = attempts.past_queue_deadline(connection, tx.now, limit)
    never = attempts.never_offered(connection, limit)
    late = attempts.past_lost_after(connection, tx.now, limit)
    orphaned = attempts.without_node(connection, limit)
    changes.load([*past, *never, *late, *orphaned])
    doubt = restore.standing(connection) if past or never else None
    for id_ in past:
        reason = changes[id_].attempt.reason
        why = f"no start before its queue deadline; last reason: {reason or 'none'}"
        restore.end_waiting(changes, id_, why, doubt)
    for id_ in never:
        one = changes[id_].attempt
        if one.state == "assigned" and one.node and not restore.is_held(doubt, changes[id_]):
            changes.apply(
                core_give_back(one, "its node cannot take it, and it was never offered"),
                node=one.node,
            )
    for id_ in late:
        one = changes[id_].attempt
        changes.apply(declare_lost(one, "the node did not report its end within lost_after"))
        _log_gone(changes, id_)
    for id_ in orphaned:
        changes.apply(declare_lost(changes[id_].attempt, "its node was deleted"))
        _log_gone(changes, id_)
    changes.flush()
    node_cases.confirm_drains(tx)
    in_doubt = restore.settle(tx)
    if late or orphaned:
        tx.nudge("sealing")
    ended = len({*past, *never, *late, *orphaned})
    return Swept(ended, not in_doubt and not attempts.is_any_unfinished(connection))


def _log_gone(changes: Changes, attempt: str) -> None:
    if changes[attempt].log_state in {"open", "again"}:
        changes.alter(attempt, log_state="gone")
