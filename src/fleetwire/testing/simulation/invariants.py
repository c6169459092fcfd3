"""What must hold after every step, whatever failed: the promises, judged from outside.

The record is read by a connection of its own, so that only what is committed counts; what really
happened stands in the ledger.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from fleetwire.core.attempts import FINAL, SPOOL_GONE
from fleetwire.server.domain import proof, views
from fleetwire.server.store import attempts, nodes
from fleetwire.server.store.attempts import SETTLED, AttemptRow
from fleetwire.server.store.shell_sqlite import SqliteShell
from fleetwire.testing.simulation.ledger import Ledger, Started
from fleetwire.testing.simulation.logs import Durable


class Violation(AssertionError):
    """A promise was broken. `promise` is its number, or what else had to hold."""

    def __init__(self, promise: str, what: str) -> None:
        super().__init__(f"{promise}: {what}")
        self.promise = promise


class Acknowledged(NamedTuple):
    """A run that a client was told of, with its attempts."""

    run: str
    attempts: tuple[str, ...]


class Remembered(NamedTuple):
    """What the judge knew at some moment."""

    seen: dict[str, AttemptRow]
    epochs: dict[int, tuple[str, str | None]]
    acknowledged: list[Acknowledged]


class Judge:
    """Looks at the record, the logs and the ledger. Every method raises `Violation`."""

    def __init__(
        self,
        shell: SqliteShell,
        durable: Durable,
        ledger: Ledger,
        *,
        lease_s: float,
        clock: Callable[[], int],
    ) -> None:
        self._shell = shell
        self._connection = self._shell.connect(reader=True)
        self._durable = durable
        self._ledger = ledger
        self._seen: dict[str, AttemptRow] = {}
        self._epochs: dict[int, tuple[str, str | None]] = {}
        self._heard: dict[str, float] = {}
        self._lease_s = lease_s
        self._clock = clock
        self.candidates: list[str] = []
        self.acknowledged: list[Acknowledged] = []
        # (attempt, epoch) that were given by a record that a backup has replaced since.
        self._given_before: set[tuple[str, int]] = set()

    # -- when an older record is put back ----------------------------------------------------

    def remember(self) -> Remembered:
        """Return what is known now, for when the record of now is put back."""
        self.look()
        return Remembered(dict(self._seen), dict(self._epochs), list(self.acknowledged))

    def go_back(self, to: Remembered) -> None:
        """The record is that of an earlier moment again. What really happened since stays true:
        what was started once must not be started again.
        """
        self._given_before |= {(id_, epoch) for epoch, (id_, _) in self._epochs.items()}
        self._seen, self._epochs = dict(to.seen), dict(to.epochs)
        self.acknowledged = list(to.acknowledged)
        self.candidates = []
        self.look()

    def _was_forgotten(self, attempt: str) -> bool:
        """Whether it was given to a node by a record that a backup has replaced since."""
        return any(id_ == attempt for id_, _ in self._given_before)

    # -- after each commit of the record -----------------------------------------------------

    def look(self) -> dict[str, AttemptRow]:
        """Compare the record with what it said before and with the ledger."""
        shell, connection = self._shell, self._connection
        shell.begin_read(connection)
        try:
            if locked := set(nodes.all_ids(connection)) - nodes.let_in(connection):
                raise Violation("clones", f"a node was quarantined for nothing: {locked}")
            retries = attempts.retries(connection)
            ids = [
                *self._seen,
                *self.candidates,
                *(id_ for id_ in retries if id_ not in self._seen),
            ]
            rows = attempts.look(connection, ids)
        finally:
            shell.end_read(connection)
        for id_, before in self._seen.items():
            now = rows.get(id_)
            if now is None:
                raise Violation("P1", f"attempt {id_} is gone")
            if now != before:
                self._compare(before, now)
        for id_, row in rows.items():
            if row != self._seen.get(id_):
                self._check(row)
            self._seen[id_] = row
        self.candidates = [id_ for id_ in self.candidates if id_ not in self._seen]
        return rows

    def _compare(self, before: AttemptRow, now: AttemptRow) -> None:
        was, is_ = before.attempt, now.attempt
        if is_.epoch < was.epoch:
            raise Violation("epochs", f"{now.id} went from {was.epoch} to {is_.epoch}")
        if was.state in FINAL and (is_.outcome, is_.state) != (was.outcome, was.state):
            raise Violation(
                "P4", f"{now.id} was {was.state}/{was.outcome}, now {is_.state}/{is_.outcome}"
            )
        if before.log_state in SETTLED and now.log_state != before.log_state:
            late = before.log_state == "missing" and now.attempt.late_exit is not None
            if not late:
                raise Violation("P5", f"{now.id}: log {before.log_state} became {now.log_state}")

    def _check(self, row: AttemptRow) -> None:
        one = row.attempt
        if one.state in {"assigned", "running"} and (one.node is None or row.lost_after is None):
            raise Violation("P1", f"{row.id} is {one.state} without owner or deadline")
        if one.epoch and (row.id, one.epoch) not in self._given_before:
            given = self._epochs.setdefault(one.epoch, (row.id, one.node))
            if given[0] != row.id:
                raise Violation("epochs", f"{one.epoch} was given to {row.id} and {given[0]}")
        starts = [s for s in self._ledger.of(row.id) if s.epoch == one.epoch]
        if one.state == "exited":
            if not starts:
                raise Violation("truth", f"{row.id} has exited and never started")
            if starts[0].lives:
                raise Violation("truth", f"{row.id} has exited and lives")
            wished = one.wish == "stop" or self._was_forgotten(row.id)
            if one.exit is not None and one.exit.cause == "stopped" and not wished:
                raise Violation("law 1", f"{row.id} was stopped, and nobody wished it")
        if one.state == "lost":
            self._check_lost(row, starts)
        if one.state in {"refused", "expired"} and starts:
            raise Violation("truth", f"{row.id} is {one.state} and has started")
        if one.outcome == "canceled":
            living = self._ledger.alive(row.id)
            if living:
                raise Violation("P13", f"{row.id} is canceled and lives on {living[0].node}")
            if one.state == "canceled" and starts:
                raise Violation("P13", f"{row.id} is canceled before its start, and has started")
        if row.log_state == "sealed" and one.state in {"exited", "lost"}:
            self._check_seal(row, starts)

    def _check_lost(self, row: AttemptRow, starts: list[Started]) -> None:
        """Nobody is given up while it lives: a node says that it has lost it, and only then."""
        if self._ledger.alive(row.id):
            raise Violation("truth", f"{row.id} is lost ({row.attempt.reason}) and lives")
        if row.attempt.reason == SPOOL_GONE:
            if not starts:
                raise Violation("truth", f"{row.id} is lost, and was never started")
            # A node forgets what was sealed, and the record may have been put back to before that.
            if not starts[0].power_lost and not self._was_forgotten(row.id):
                raise Violation("truth", f"{row.id} is lost, and its node has lost nothing")

    def _check_seal(self, row: AttemptRow, starts: list[Started]) -> None:
        content = self._durable.content(row.id)
        sha256 = hashlib.sha256(content).hexdigest()
        if row.log_length != len(content) or row.log_sha256 != sha256:
            raise Violation(
                "P5",
                f"{row.id} is sealed with {row.log_length} bytes {row.log_sha256}, "
                f"stored are {len(content)} with {sha256}",
            )
        exit_ = row.attempt.exit or row.attempt.late_exit
        if exit_ is not None and starts and bytes(starts[0].written) != content:
            raise Violation(
                "P5", f"{row.id} is sealed with {len(content)} of {len(starts[0].written)} bytes"
            )

    # -- as things happen --------------------------------------------------------------------

    def run_acknowledged(self, made: Acknowledged) -> None:
        """A client was just told that the run is stored."""
        self.acknowledged.append(made)
        self.candidates += [id_ for id_ in made.attempts if id_ not in self._seen]
        rows = self.look()
        missing = [id_ for id_ in made.attempts if id_ not in rows]
        if missing:
            raise Violation("P1", f"run {made.run} is acknowledged and not durable")

    def heard(self, node: str, now: float) -> None:
        """A server has just taken a heartbeat or a hello of this node."""
        self._heard[node] = now

    def start_decided(self, node: str, attempt: str, admin: str, now: float) -> None:
        """An agent has just decided to start an attempt; `admin` is what its node has confirmed."""
        if admin != "active":
            raise Violation("P12", f"{attempt} is to start on {node}, which is {admin}")
        if now >= self._heard.get(node, -math.inf) + self._lease_s:
            raise Violation("lease", f"{attempt} is to start on {node}, whose lease is over")

    def started(self, started: Started, node: str) -> None:
        """A task has just really started."""
        id_ = started.attempt
        starts = self._ledger.of(id_)
        for one in starts[:-1]:
            if one.epoch == started.epoch:
                raise Violation("P2", f"{id_} started twice with epoch {one.epoch}")
            if started.epoch < one.epoch:
                raise Violation("P2", f"{id_} started with epoch {started.epoch} after {one.epoch}")
            raise Violation("P2", f"{id_} started with epochs {one.epoch} and {started.epoch}")
        if (id_, started.epoch) in self._given_before:
            return  # its order came from a record that a backup has replaced since
        shell, connection = self._shell, self._connection
        shell.begin_read(connection)
        try:
            link = nodes.links(connection, [node])[node]
            row = attempts.look(connection, [id_]).get(id_)
        finally:
            shell.end_read(connection)
        if row is None:
            raise Violation("P1", f"{id_} has started and is not in the record")
        if row.attempt.epoch == started.epoch and row.attempt.state == "assigned":
            if not row.attempt.offered:
                raise Violation("P2", f"{id_} has started and was never offered")
        elif row.attempt.epoch < started.epoch:
            raise Violation("P2", f"{id_} started with epoch {started.epoch}, never given")
        if link.admin == "drained":
            raise Violation("P12", f"{id_} started on {node}, which is drained")

    def stored(self, attempt: str, offset: int, data: bytes) -> None:
        """A chunk of a log has just become durable."""
        starts = self._ledger.of(attempt)
        if not starts:
            raise Violation("P5", f"{attempt} has a log and never started")
        if self._was_forgotten(attempt) and self._durable.has_gap(attempt):
            return  # what was trimmed on the node before the backup was put back exists nowhere
        wrote = starts[0].written[offset : offset + len(data)]
        if bytes(wrote) != data:
            raise Violation("P5", f"{attempt}: other bytes are stored at {offset} than written")
        if self._durable.length(attempt) != len(self._durable.content(attempt)):
            raise Violation("P5", f"{attempt}: its length is not that of its bytes")

    def durable_said(self, attempt: str, length: int) -> None:
        """The server has just told a node that its log is durable up to here."""
        if self._durable.length(attempt) < length:
            raise Violation(
                "durable",
                f"{attempt}: {length} are called durable, {self._durable.length(attempt)} are",
            )

    def sealed_said(self, ids: Iterable[str]) -> None:
        """The server has just told a node that these are sealed."""
        rows = self.look()
        for id_ in ids:
            row = rows.get(id_)
            if row is None or row.log_state not in SETTLED:
                raise Violation("sealed", f"{id_} is called sealed and is not")

    # -- at the end --------------------------------------------------------------------------

    def unfinished(self) -> list[str]:
        """Return what still has to happen, in words."""
        return [
            f"{id_}: {row.attempt.state}, wish {row.attempt.wish}, log {row.log_state}, "
            f"node {row.attempt.node}, reason {row.attempt.reason}"
            for id_, row in self._seen.items()
            if row.attempt.state not in FINAL or row.log_state not in SETTLED
        ]

    def close_the_books(self, runs: Iterable[str]) -> None:
        """Everything has ended: the record must be the whole truth."""
        shell, connection = self._shell, self._connection
        shell.begin_read(connection)
        try:
            for id_ in runs:
                run = views.get_run(connection, id_)
                if run.state != "ended" or not run.sealed:
                    raise Violation("fold", f"run {id_} is {run.state}, sealed {run.sealed}")
            page = views.list_runs(connection, limit=500)
            twice = [name for name, n in Counter(run.name for run in page.items).items() if n > 1]
            if twice:
                raise Violation("P1", f"submitted once and stored twice: {twice}")
            if unproven := proof.unproven(connection, self._clock()):
                raise Violation("law 8", f"nobody would end {unproven}")
        finally:
            shell.end_read(connection)
        for id_, row in self._seen.items():
            self._close(id_, row)

    def _close(self, id_: str, row: AttemptRow) -> None:
        starts = self._ledger.of(id_)
        living = self._ledger.alive(id_)
        if living:
            raise Violation("truth", f"{id_} is {row.attempt.state} and lives")
        if not starts or starts[0].power_lost:
            return
        said = row.attempt.exit or row.attempt.late_exit
        if said is None and row.attempt.state == "exited":
            raise Violation("truth", f"{id_} has exited without an exit record")
        gap = row.log_state in {"missing", "damaged"} and self._was_forgotten(id_)
        if said is not None and row.log_state != "sealed" and not gap:
            raise Violation(
                "P5", f"{id_} lost no power, and its log is {row.log_state}: {row.log_length}"
            )
