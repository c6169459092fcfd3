"""Submitting and stopping runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from fleetwire.core import limits
from fleetwire.core.attempts import FINAL, Attempt, wish_stop
from fleetwire.core.runs import fold_counts, no_counts, placements, select
from fleetwire.core.specs import RunRequest, check_request
from fleetwire.server.domain.changes import Changes
from fleetwire.server.domain.errors import IdempotencyConflict, NotFound
from fleetwire.server.store import attempts, nodes, runs
from fleetwire.server.store.attempts import AttemptRow
from fleetwire.server.store.engine import Tx

__all__ = ["IdempotencyConflict", "NotFound", "Submitted", "stop", "submit"]

US: Final = 1_000_000
_encode = msgspec.json.Encoder().encode


class Submitted(msgspec.Struct, frozen=True):
    """A run that is stored; `created` is False where the idempotency key had made it before."""

    run_id: str
    created: bool


def submit(
    tx: Tx,
    request: RunRequest,
    *,
    user: str,
    ids: Callable[[], str],
    idempotency: tuple[str, str] | None,
    segment: str,
) -> Submitted:
    """Store a run with its tasks, and attempt 1 of each as pending.

    `user` is the id of who asks, `idempotency` a key and the hash of the body it came with,
    `segment` where the logs go (5.10). Raises BadSpec, LimitExceeded, BadSelector,
    NoNodeMatches, IdempotencyConflict.
    """
    check_request(request)
    if idempotency is not None:
        before = _made_before(tx, user, idempotency)
        if before is not None:
            return Submitted(before, created=False)
    chosen = select(request, nodes.targets(tx.connection))
    placed = placements(request, chosen)
    run_id = ids()
    counts = no_counts() | {"total": len(placed), "pending": len(placed)}
    deadline = tx.now + round(request.queue_timeout * US)
    tasks = []
    first = []
    for position, node in enumerate(placed):
        task, attempt = ids(), ids()
        tasks.append(
            {
                "id": task,
                "run_id": run_id,
                "position": position,
                "node_id": node,
                "attempt_id": attempt,
            }
        )
        first.append(
            AttemptRow(
                attempt=Attempt(id=attempt),
                task_id=task,
                run_id=run_id,
                target=node,
                number=1,
                queue_deadline=deadline,
                segment=segment,
            )
        )
    runs.insert_run(
        tx.connection,
        {
            "id": run_id,
            "name": request.name,
            "request": _encode(request).decode(),
            "wish": "run",
            "state": fold_counts(counts).state,
            "counts": _encode(counts).decode(),
            "unsettled": len(placed),
            "created_by": user,
            "created_at": tx.now,
            "idempotency_key": idempotency[0] if idempotency else None,
            "idempotency_hash": idempotency[1] if idempotency else None,
        },
        tasks,
    )
    attempts.insert_all(tx.connection, first)
    tx.nudge("dispatch")
    tx.nudge("runs")
    return Submitted(run_id, created=True)


def stop(tx: Tx, run_id: str, *, by: str, grace: float | None) -> None:
    """Wish all attempts of a run to stop; `by` is a user's name, `grace` seconds or None for the
    spec's own. Asked again it changes nothing but a grace that is shorter now. Raises NotFound.
    """
    wished = runs.wish(tx.connection, run_id)
    if wished is None:
        raise NotFound(f"There is no run {run_id}.", hint="fleetwire runs lists them.")
    if wished == "run":
        runs.change(tx.connection, run_id, wish="stop")
        tx.nudge(f"run:{run_id}")
    changes = Changes(tx)
    of_run = attempts.of_run(tx.connection, run_id)
    changes.take(of_run)
    for row in of_run:
        if row.attempt.state in FINAL:
            continue
        after = changes.apply(wish_stop(row.attempt, f"stopped by {by}"))
        if after.attempt.state in FINAL:
            continue
        told = row.stop_grace if row.attempt.wish == "stop" else None
        if grace is not None and (row.attempt.wish == "run" or told is None or grace < told):
            changes.alter(row.id, stop_grace=grace)
        elif row.attempt.wish == "stop":
            continue
        tx.nudge(f"node:{after.attempt.node}")
    changes.flush()


def _made_before(tx: Tx, user: str, idempotency: tuple[str, str]) -> str | None:
    """Return the run that holds the key; free a key that is older than 24 hours."""
    key, body = idempotency
    held = runs.by_idempotency_key(tx.connection, user, key)
    if held is None:
        return None
    run_id, stored, created_at = held
    if created_at <= tx.now - limits.IDEMPOTENCY_KEEP_S * US:
        runs.change(tx.connection, run_id, idempotency_key=None, idempotency_hash=None)
        return None
    if stored != body:
        raise IdempotencyConflict(
            f"The idempotency key {key[:80]!r} was used for another request, run {run_id}.",
            hint="Use a new key for a new request; the same key repeats the same one.",
            field="Idempotency-Key",
        )
    return run_id
