"""What one transaction changes: attempts, the folds of their runs, their stories, and who must
look again. Every use case that moves an attempt does it through a `Changes`, so that a fold is
always the fold of what is stored, in the same transaction (law 5).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from fleetwire.core import retry
from fleetwire.core.attempts import FINAL, Applied, Attempt, supersede
from fleetwire.core.runs import fold_counts, no_counts
from fleetwire.server.domain import stops
from fleetwire.server.logs.base import segment_at
from fleetwire.server.store import attempts, decisions, runs
from fleetwire.server.store.attempts import SETTLED, AttemptRow, LogState
from fleetwire.server.store.decisions import Decision
from fleetwire.server.store.engine import Tx

EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest()
NEVER_STARTED: Final = frozenset({"refused", "expired", "canceled"})
_counts = msgspec.json.Decoder(dict[str, int])
_encode = msgspec.json.Encoder().encode


class Changes:
    """Rows read to be changed, as they were and as they are now. `flush` once, at the end."""

    def __init__(self, tx: Tx) -> None:
        self.tx = tx
        self._before: dict[str, AttemptRow] = {}
        self._now: dict[str, AttemptRow] = {}
        self._lines: list[Decision] = []
        self._next: dict[str, AttemptRow] = {}  # by the attempt whose place each takes

    def take(self, rows: Iterable[AttemptRow]) -> None:
        """Take rows that this transaction has locked; one that is known already stays."""
        for row in rows:
            if row.id not in self._now:
                self._before[row.id] = self._now[row.id] = row

    def load(self, ids: Iterable[str]) -> None:
        """Read and take the attempts that exist."""
        missing = [id_ for id_ in dict.fromkeys(ids) if id_ not in self._now]
        if missing:
            self.take(attempts.load(self.tx.connection, missing).values())

    def get(self, attempt: str) -> AttemptRow | None:
        """Return an attempt as it is now, or None if it was not found."""
        return self._now.get(attempt)

    def __getitem__(self, attempt: str) -> AttemptRow:
        return self._now[attempt]

    def alter(self, id_: str, /, **columns: Any) -> AttemptRow:  # noqa: ANN401 - columns of AttemptRow
        """Set columns beside the machine; return the row as it is now."""
        row = self._now[id_] = msgspec.structs.replace(self._now[id_], **columns)
        return row

    def apply(self, applied: Applied, *, node: str | None = None) -> AttemptRow:
        """Take a step of the machine, with its line of the story.

        `node` is who the line is about where the attempt no longer names it.
        """
        new = applied.attempt
        row = self._now[new.id]
        if new is not row.attempt:
            row = msgspec.structs.replace(row, attempt=new)
            if new.state in FINAL and row.ended_at is None:
                row = msgspec.structs.replace(row, ended_at=self.tx.now)
            if new.state in NEVER_STARTED:
                # What never started has an empty log, and that is all of it.
                row = msgspec.structs.replace(
                    row, log_state="sealed", log_length=0, log_sha256=EMPTY_SHA256
                )
            self._now[new.id] = row
        if applied.note is not None:
            self.tell(row, applied.note, node=node)
        return row

    def settle(
        self, attempt: str, log_state: LogState, length: int | None, sha256: str | None
    ) -> AttemptRow:
        """The log is complete, or declared not to become so (5.7): then why was told."""
        if log_state == "sealed":
            self._tell_sealed(self._now[attempt], length or 0)
        return self.alter(attempt, log_state=log_state, log_length=length, log_sha256=sha256)

    def _tell_sealed(self, row: AttemptRow, length: int) -> None:
        """Tell that the log is complete: where its end came in this very transaction, in the same
        line, for that is how nearly every attempt ends, and each line is a row.
        """
        text = f"its log is complete: {length} bytes"
        for number, line in enumerate(reversed(self._lines), 1):
            if line.attempt_id == row.id:
                self._lines[-number] = line._replace(text=f"{line.text}; {text}")
                return
        self.tell(row, text)

    def tell(
        self, row: AttemptRow, text: str, *, node: str | None = None, epoch: int | None = None
    ) -> None:
        """Record a line of an attempt's story."""
        self._lines.append(
            Decision(
                at=self.tx.now,
                run_id=row.run_id,
                attempt_id=row.id,
                node_id=node or row.attempt.node or row.target,
                epoch=row.attempt.epoch if epoch is None else epoch,
                text=text,
            )
        )

    def told(self, attempt: str, node: str) -> set[str]:
        """Return what is recorded of an attempt on a node, this transaction's lines among it."""
        mine = {
            line.text for line in self._lines if line.attempt_id == attempt and line.node_id == node
        }
        return mine | decisions.texts(self.tx.connection, attempt, node)

    def flush(self) -> None:
        """Store everything, the retries that follow from it among it, and send the nudges."""
        tx = self.tx
        self._retry()
        changed = self._changed()
        attempts.save(tx.connection, changed)
        stops.follow(tx, changed)
        if self._next:
            attempts.insert_all(tx.connection, list(self._next.values()))
            runs.point(tx.connection, {new.task_id: new.id for new in self._next.values()})
            if any(new.not_before is None for new in self._next.values()):
                tx.nudge("dispatch")
        decisions.record(tx.connection, self._lines)
        _refold(tx, changed, self._next)
        for before, after in changed:
            if _frees(before.attempt, after.attempt):
                tx.nudge(f"dispatch:{before.attempt.node}")

    def _changed(self) -> list[tuple[AttemptRow, AttemptRow]]:
        return [
            (before, self._now[id_])
            for id_, before in self._before.items()
            if self._now[id_] is not before
        ]

    def _retry(self) -> None:
        """Give the attempts that end here and whose run tries again their successors (P3), in
        the same transaction: nobody ever sees such a run ended.
        """
        ended = [
            after
            for before, after in self._changed()
            if before.attempt.state not in FINAL and after.attempt.outcome in retry.RETRIED
        ]
        if not ended:
            return
        requests = runs.requests(self.tx.connection, {row.run_id for row in ended})
        for row in ended:
            request = requests[row.run_id]
            planned = retry.plan(request.retry, row.attempt, row.number, self.tx.now)
            if planned is None:
                continue
            at_once = planned.not_before <= self.tx.now
            new = self._next[row.id] = AttemptRow(
                attempt=Attempt(
                    id=retry.attempt_id(row.task_id, planned.number, self.tx.now),
                    # Without a reason it is new to dispatch, which looks at once.
                    reason=None if at_once else planned.reason,
                ),
                task_id=row.task_id,
                run_id=row.run_id,
                target=row.target,
                number=planned.number,
                queue_deadline=planned.not_before + round(request.queue_timeout * retry.US),
                segment=segment_at(self.tx.now),
                not_before=None if at_once else planned.not_before,
            )
            self.apply(supersede(row.attempt, planned.number))
            if row.attempt.outcome == "lost":
                self.tx.nudge(f"node:{row.attempt.node}")
            self.tell(new, f"waits: {planned.reason}")


def _frees(before: Attempt, after: Attempt) -> bool:
    """Say whether dispatch may now do something that it could not do before."""
    live = {"assigned", "running"}
    return before.state in live and after.state not in live


def _refold(
    tx: Tx, changed: list[tuple[AttemptRow, AttemptRow]], successors: Mapping[str, AttemptRow]
) -> None:
    """Move the folds of the runs by what has changed. A task is its latest attempt: where one
    has a successor, the task stands where that stands.
    """
    moved: dict[str, dict[str, int]] = {}
    settled: dict[str, int] = {}
    for before, after in changed:
        run_id = after.run_id
        settled.setdefault(run_id, 0)
        settled[run_id] += (before.log_state in SETTLED) - (after.log_state in SETTLED)
        was = before.attempt.outcome or before.attempt.state
        now = after.attempt.outcome or after.attempt.state
        if after.id in successors:
            now = successors[after.id].attempt.state
            settled[run_id] += 1
        if was != now:
            delta = moved.setdefault(run_id, {})
            delta[was] = delta.get(was, 0) - 1
            delta[now] = delta.get(now, 0) + 1
    refold = [run_id for run_id in settled if settled[run_id] or run_id in moved]
    updates = []
    for row in runs.folds(tx.connection, refold) if refold else ():
        counts = no_counts() | _counts.decode(row.counts)
        for key, delta_of_key in moved.get(row.id, {}).items():
            counts[key] += delta_of_key
        folded = fold_counts(counts)
        ended = folded.state == "ended"
        updates.append(
            {
                "the_id": row.id,
                "state": folded.state,
                "outcome": folded.outcome,
                "counts": _encode(counts).decode(),
                "unsettled": row.unsettled + settled[row.id],
                "ended_at": tx.now if ended and row.state != "ended" else None,
            }
        )
    # `ended_at` is written once, when the run ends: a log that settles later does not move it.
    runs.refold(tx.connection, updates)
    for run_id in settled:
        tx.nudge(f"run:{run_id}")
    if updates:
        tx.nudge("runs")
