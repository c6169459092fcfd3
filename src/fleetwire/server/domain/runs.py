"""Submitting and stopping runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from fleetwire.core import access, limits
from fleetwire.core.attempts import FINAL, Attempt, may_still_run, wish_stop
from fleetwire.core.audit import Act, Origin, Target
from fleetwire.core.errors import FleetwireError
from fleetwire.core.runs import fold_counts, no_counts, placements, select
from fleetwire.core.specs import RunRequest, Script, check_request, kind_of, run_as, secrets_of
from fleetwire.server.domain import restore, secrets, views
from fleetwire.server.domain.changes import Changes
from fleetwire.server.domain.errors import IdempotencyConflict, NotFound
from fleetwire.server.store import attempts, nodes, projects, runs
from fleetwire.server.store.attempts import AttemptRow
from fleetwire.server.store.engine import Tx

__all__ = [
    "IdempotencyConflict",
    "NotFound",
    "Submission",
    "Submitted",
    "stop",
    "submit",
    "submit_all",
]

US: Final = 1_000_000
_NO_NODES: Final = nodes.Catalogue([])
_encode = msgspec.json.Encoder().encode


class Submitted(msgspec.Struct, frozen=True):
    """A run that is stored. `made` is the run as it was stored, or None where the idempotency
    key had made it before: then it has a story already, which only the store can tell.
    """

    run_id: str
    made: views.RunView | None

    @property
    def created(self) -> bool:
        """Whether this submission made the run."""
        return self.made is not None


class Submitter(NamedTuple):
    """Who submits: the id and the name of a user."""

    id: str
    name: str


class Submission(NamedTuple):
    """What `submit` takes, as a value. `project` is the id of the project that the run belongs
    to, and whose nodes it may use; `origin` is who submits as the audit knows it.
    """

    request: RunRequest
    user: Submitter
    idempotency: tuple[str, str] | None
    segment: str
    project: str = access.DEFAULT_PROJECT
    origin: Origin | None = None


def submit(
    tx: Tx,
    request: RunRequest,
    *,
    user: Submitter,
    ids: Callable[[], str],
    idempotency: tuple[str, str] | None,
    segment: str,
) -> Submitted:
    """Store a run with its tasks, and attempt 1 of each as pending.

    `idempotency` is a key and the hash of the body it came with,
    `segment` where the logs go (5.10). Raises BadSpec, LimitExceeded, BadSelector,
    NoNodeMatches, IdempotencyConflict.
    """
    (made,) = submit_all(tx, [Submission(request, user, idempotency, segment)], ids=ids)
    if isinstance(made, FleetwireError):
        raise made
    return made


def submit_all(
    tx: Tx, submissions: Sequence[Submission], *, ids: Callable[[], str]
) -> list[Submitted | FleetwireError]:
    """Store many runs with the statements of one. Each is refused or stored by itself: the
    answer to a refused one is its error, and nothing of it is stored.
    """
    new = _New(tx, ids, submissions)
    answers: list[Submitted | FleetwireError] = []
    for one in submissions:
        try:
            answers.append(new.take(one))
        except FleetwireError as error:
            answers.append(error)
    new.store()
    return answers


class _New:
    """The rows of new runs, until they are stored together."""

    def __init__(self, tx: Tx, ids: Callable[[], str], submissions: Sequence[Submission]) -> None:
        self._tx = tx
        self._ids = ids
        self._catalogues = nodes.catalogues(tx.connection)
        of_them = {one.project for one in submissions}
        self._projects = projects.names(tx.connection, of_them)
        self._held = _held(tx, submissions)
        self._runs: list[dict[str, Any]] = []
        self._tasks: list[dict[str, Any]] = []
        self._attempts: list[AttemptRow] = []
        self._keys: dict[tuple[str, str], tuple[str, str]] = {}
        self._acts: list[Act] = []

    def take(self, asked: Submission) -> Submitted:
        """Check one submission and make its rows."""
        request, user, idempotency, segment, project, _ = asked
        check_request(request)
        if idempotency is not None:
            before = self._made_before(user.id, idempotency)
            if before is not None:
                return Submitted(before, None)
        tx, ids = self._tx, self._ids
        catalogue = self._catalogues.get(project, _NO_NODES)
        if uses := secrets_of(request.spec):
            secrets.check_known(tx.connection, project, uses)
        targets = catalogue.all if request.nodes is None else catalogue.named(request.nodes)
        chosen = select(request, targets)
        names = {node.id: node.name for node in chosen}
        placed = placements(request, chosen)
        run_id = ids()
        counts = no_counts() | {"total": len(placed), "pending": len(placed)}
        deadline = tx.now + round(request.queue_timeout * US)
        tasks = []
        for position, node in enumerate(placed):
            task, attempt = ids(), ids()
            tasks.append(views.new_task(task, position, node, names.get(node or ""), attempt))
            self._tasks.append(
                {
                    "id": task,
                    "run_id": run_id,
                    "position": position,
                    "node_id": node,
                    "attempt_id": attempt,
                }
            )
            self._attempts.append(
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
        made = views.RunView(
            id=run_id,
            name=request.name,
            state=fold_counts(counts).state,
            outcome=None,
            wish="run",
            created_at=tx.now,
            ended_at=None,
            created_by=user.name,
            selector=request.selector,
            nodes=request.nodes,
            any=request.any,
            spec=request.spec,
            counts=counts,
            sealed=False,
            project=self._projects[project],
            retry=request.retry,
            lost_after=request.lost_after,
            tasks=tuple(tasks),
        )
        self._runs.append(
            {
                "id": run_id,
                "name": request.name,
                "request": _encode(request).decode(),
                "wish": made.wish,
                "state": made.state,
                "counts": _encode(counts).decode(),
                "unsettled": len(placed),
                "created_by": user.id,
                "created_at": tx.now,
                "idempotency_key": idempotency[0] if idempotency else None,
                "idempotency_hash": idempotency[1] if idempotency else None,
                "project_id": project,
            }
        )
        if idempotency is not None:
            self._keys[user.id, idempotency[0]] = (run_id, idempotency[1])
        self._acts.append(_act(asked, run_id, len(placed)))
        return Submitted(run_id, made)

    def store(self) -> None:
        """Store what was taken."""
        if self._runs:
            runs.insert_all(self._tx.connection, self._runs, self._tasks)
            attempts.insert_all(self._tx.connection, self._attempts)
            for act in self._acts:
                self._tx.audit(act)
            self._tx.nudge("dispatch")
            self._tx.nudge("runs")

    def _made_before(self, user: str, idempotency: tuple[str, str]) -> str | None:
        """Return the run that holds the key; free a key that is older than 24 hours (P1)."""
        key, body = idempotency
        mine = self._keys.get((user, key))
        if mine is not None:
            run_id, stored = mine
        else:
            held = self._held.get((user, key))
            if held is None:
                return None
            run_id, stored, created_at = held[0], held[1] or "", held[2]
            if created_at <= self._tx.now - limits.IDEMPOTENCY_KEEP_S * US:
                runs.change(
                    self._tx.connection, run_id, idempotency_key=None, idempotency_hash=None
                )
                return None
        if stored != body:
            raise IdempotencyConflict(
                f"The idempotency key {key[:80]!r} was used for another request, run {run_id}.",
                hint="Use a new key for a new request; the same key repeats the same one.",
                field="Idempotency-Key",
            )
        return run_id


def _act(asked: Submission, run_id: str, tasks: int) -> Act:
    """Return what the audit says of a new run. Script, arguments and environment may hold what
    nobody should read: the hash of the script stands for it.
    """
    request, user, _, _, project, origin = asked
    spec = request.spec
    detail = {"kind": kind_of(spec), "tasks": str(tasks)}
    if isinstance(spec, Script):
        text = spec.script.encode("utf-8", "surrogatepass")
        detail["script_sha256"] = hashlib.sha256(text).hexdigest()
    if request.selector is not None:
        detail["selector"] = request.selector
    if user_of_node := run_as(spec):
        detail["run_as"] = user_of_node
    if uses := secrets_of(spec):
        detail["secrets"] = ", ".join(sorted({use.name for use in uses}))
    by = Origin("user", user.id, user.name) if origin is None else origin
    target = Target("run", run_id, request.name or "")
    return Act("run.create", by, project, target, detail=detail)


def _held(
    tx: Tx, submissions: Sequence[Submission]
) -> dict[tuple[str, str], tuple[str, str | None, int]]:
    """Return the runs that hold the submissions' idempotency keys, by user and key."""
    keys: dict[str, list[str]] = {}
    for one in submissions:
        if one.idempotency is not None:
            keys.setdefault(one.user.id, []).append(one.idempotency[0])
    return {
        (user, key): held
        for user, of_user in keys.items()
        for key, held in runs.by_idempotency_keys(tx.connection, user, of_user).items()
    }


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
    doubt = restore.standing(tx.connection)
    for row in of_run:
        if row.attempt.state in FINAL and not may_still_run(row.attempt):
            continue
        in_doubt = restore.is_held(doubt, row)
        after = changes.apply(wish_stop(row.attempt, f"stopped by {by}", in_doubt=in_doubt))
        if after.attempt.state == "lost":
            tx.nudge(f"node:{after.attempt.node}")
        if after.attempt.state in FINAL:
            continue
        told = row.stop_grace if row.attempt.wish == "stop" else None
        if grace is not None and (row.attempt.wish == "run" or told is None or grace < told):
            changes.alter(row.id, stop_grace=grace)
        elif row.attempt.wish == "stop":
            continue
        tx.nudge(f"node:{after.attempt.node}")
    changes.flush()
