"""Dispatch in three steps: look (a view), plan (`core.dispatch`), carry out.

Signing stands between plan and carrying out, outside of any transaction: epochs come from a
block that was reserved before, so the order's bytes are known in advance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from fleetwire.core import limits
from fleetwire.core.attempts import assign, expire
from fleetwire.core.dispatch import Expire, NodeView, Wait, Waiting, obstacle
from fleetwire.core.envelopes import Envelope, spec_sha256
from fleetwire.core.labels import Selector, parse_selector
from fleetwire.core.specs import RunRequest, kind_of
from fleetwire.server.domain import cluster
from fleetwire.server.domain.changes import Changes
from fleetwire.server.store import Connection, attempts, nodes, runs, waiting
from fleetwire.server.store.engine import Tx
from fleetwire.server.store.nodes import Placed
from fleetwire.server.store.waiting import Pending

US: Final = 1_000_000
PER_ROUND: Final = 500
PER_NODE: Final = 64


class View(NamedTuple):
    """What a round plans with. `waiting` is oldest first; `runs` tells of the runs in it.

    `more` says that a list was cut: another round may find work at once. `page_end` is where
    the next page of all begins; "" is the beginning.
    """

    waiting: list[Waiting]
    nodes: dict[str, NodeView]
    more: bool
    page_end: str


class RunFacts(NamedTuple):
    """What never changes of a run, as its orders need it."""

    kind: str
    spec_sha256: str


class Signed(NamedTuple):
    """An assignment with its order's envelope and signature; `generation` is its epoch's."""

    attempt: str
    node: str
    epoch: int
    envelope: Envelope
    signature: bytes


def view(connection: Connection, now: int, *, page_after: str | None) -> View:
    """Look at what could change now; with `page_after`, also at that page of all that wait."""
    busy = attempts.busy(connection)
    placed = nodes.placed(connection)
    all_nodes = {
        one.id: NodeView(one.id, one.name, one.link, one.admin, one.capacity, busy.get(one.id, 0))
        for one in placed
    }
    free = [id_ for id_, node in all_nodes.items() if obstacle(node, node.busy) is None]
    room = max((all_nodes[id_].capacity - all_nodes[id_].busy for id_ in free), default=0)
    each = min(room, PER_NODE)
    lists = [
        waiting.for_nodes(connection, now, free, each=each, limit=PER_ROUND) if free else [],
        waiting.for_any(connection, now, PER_ROUND),
        waiting.fresh(connection, now, PER_ROUND),
    ]
    more = any(len(found) >= PER_ROUND for found in lists)
    page_end = ""
    if page_after is not None:
        page = waiting.page(connection, now, after=page_after, limit=PER_ROUND)
        page_end = page[-1].id if len(page) == PER_ROUND else ""
        lists.append(page)
    pending = {one.id: one for found in lists for one in found}
    # Time-ordered ids: the oldest first.
    ordered = [pending[id_] for id_ in sorted(pending)]
    return View(_waiting(connection, ordered, placed), all_nodes, more, page_end)


def facts(connection: Connection, run_ids: Iterable[str]) -> dict[str, RunFacts]:
    """Return what orders need of these runs."""
    found = runs.requests(connection, run_ids)
    return {
        id_: RunFacts(kind_of(request.spec), spec_sha256(request.spec))
        for id_, request in found.items()
    }


def envelope(
    one: Waiting, node: str, epoch: int, of_run: RunFacts, *, cluster_id: str, now: int
) -> Envelope:
    """Return what is signed for an assignment. It holds until the queue deadline, and at least
    a lease's time: whoever was given it last must still be able to start it.
    """
    return Envelope(
        cluster=cluster_id,
        node=node,
        run=one.run,
        attempt=one.attempt,
        epoch=epoch,
        kind=of_run.kind,
        spec_sha256=of_run.spec_sha256,
        issued_at=now,
        expires_at=max(one.queue_deadline, now + round(limits.LEASE_S * US)),
    )


def carry_out(
    tx: Tx, generation: int, signed: list[Signed], waits: list[Wait], expires: list[Expire]
) -> bool:
    """Carry out a plan. A decision that has become stale is skipped; the next look decides anew.

    `generation` is that of the signed epochs. False: it is not the cluster's any more, and
    nothing was done.
    """
    if cluster.generation(tx) != generation:
        return False
    changes = Changes(tx)
    changes.load(
        [one.attempt for one in signed]
        + [one.attempt for one in waits]
        + [one.attempt for one in expires]
    )
    for order in signed:
        row = changes.get(order.attempt)
        if (
            row is None
            or row.attempt.state != "pending"
            or row.attempt.wish != "run"
            or order.epoch <= row.attempt.epoch
        ):
            continue
        changes.apply(assign(row.attempt, node=order.node, epoch=order.epoch))
        changes.alter(
            order.attempt,
            signature=order.signature,
            envelope=msgspec.json.encode(order.envelope).decode(),
            assigned_at=tx.now,
            incarnation=None,
            # Owner and last deadline from the first moment on (law 8); the offer moves it.
            lost_after=order.envelope.expires_at + round(limits.LOST_AFTER_S * US),
        )
        tx.nudge(f"node:{order.node}")
    for wait in waits:
        row = changes.get(wait.attempt)
        if row is not None and row.attempt.state == "pending" and row.attempt.reason != wait.reason:
            changes.alter(
                wait.attempt, attempt=msgspec.structs.replace(row.attempt, reason=wait.reason)
            )
            changes.tell(row, f"waits: {wait.reason}")
    for one in expires:
        row = changes.get(one.attempt)
        if row is not None:
            changes.apply(expire(row.attempt, one.reason))
    changes.flush()
    return True


def _waiting(connection: Connection, pending: list[Pending], placed: list[Placed]) -> list[Waiting]:
    free = {one.run_id for one in pending if one.target is None}
    taken = runs.nodes_of(connection, free) if free else {}
    asked = runs.requests(connection, free) if free else {}
    candidates = {id_: _candidates(request, placed) for id_, request in asked.items()}
    return [
        Waiting(
            attempt=one.id,
            run=one.run_id,
            epoch=one.epoch,
            queue_deadline=one.queue_deadline,
            node=one.target,
            candidates=candidates.get(one.run_id, frozenset()) if one.target is None else _NONE,
            taken=frozenset(taken.get(one.run_id, ())) if one.target is None else _NONE,
            reason=one.reason,
        )
        for one in pending
    ]


_NONE: Final[frozenset[str]] = frozenset()


def _candidates(request: RunRequest, placed: list[Placed]) -> frozenset[str]:
    """Return the nodes that a task without a node may use now."""
    if request.selector is not None:
        matches = _selector(request.selector)
        return frozenset(one.id for one in placed if matches(_labels(one.labels)))
    wanted = set(request.nodes or ())
    return frozenset(one.id for one in placed if one.id in wanted or one.name in wanted)


@lru_cache(maxsize=256)
def _selector(text: str) -> Selector:
    return parse_selector(text)


@lru_cache(maxsize=16_384)
def _labels(text: str) -> Mapping[str, str]:
    return nodes.read_labels(text)
