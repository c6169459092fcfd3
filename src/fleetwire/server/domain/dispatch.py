"""Dispatch in three steps: look (a view), plan (`core.dispatch`), carry out.

All three in one transaction of the writer: what was looked at cannot have changed when it is
carried out, a raised generation is seen (5.4), and a run costs one commit less on its way. The
price is that a round holds the writer while it signs (about 30 us an order): so rounds are short.

Nor does a round look at the whole fleet each time: what has just become possible is new attempts,
and nodes that something happened to. Only the sweep looks at all nodes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from fleetwire.core import limits
from fleetwire.core.attempts import assign, refuse
from fleetwire.core.audit import SERVER, Act, Origin, Target
from fleetwire.core.dispatch import (
    Assign,
    Expire,
    NodeView,
    Wait,
    Waiting,
    because,
    is_own_idea,
    obstacle,
    plan,
)
from fleetwire.core.envelopes import Envelope, order_bytes, spec_sha256
from fleetwire.core.errors import FleetwireError
from fleetwire.core.labels import Selector, parse_selector
from fleetwire.core.leases import next_epoch
from fleetwire.core.restore import held
from fleetwire.core.secrets import FEATURE as SECRETS
from fleetwire.core.secrets import SecretUse, sealed_sha256
from fleetwire.core.specs import RunRequest, kind_of, secrets_of
from fleetwire.server.domain import breaker, cluster, restore, secrets
from fleetwire.server.domain.changes import Changes
from fleetwire.server.domain.secrets import Sealing
from fleetwire.server.store import Connection, attempts, meta, nodes, runs, waiting
from fleetwire.server.store.attempts import AttemptRow
from fleetwire.server.store.engine import Tx
from fleetwire.server.store.nodes import Placed
from fleetwire.server.store.waiting import Pending

US: Final = 1_000_000
PER_ROUND: Final = 256
PER_NODE: Final = 64
_encode = msgspec.json.Encoder().encode
_envelope = msgspec.json.Decoder(Envelope)


class View(NamedTuple):
    """What a round plans with. `waiting` is oldest first; `runs` tells of the runs in it.

    `more` says that a list was cut: another round may find work at once. `page_end` is where
    the next page of all begins; "" is the beginning.
    """

    waiting: list[Waiting]
    nodes: dict[str, NodeView]
    more: bool
    page_end: str


class Rounded(NamedTuple):
    """What a round did. `more`: another one may find work at once; `page_end` as in `View`."""

    looked: int
    assigned: int
    told: int
    expired: int
    more: bool
    page_end: str


NOTHING_WAITS: Final = Rounded(0, 0, 0, 0, more=False, page_end="")


class Signing(NamedTuple):
    """How orders are signed: for which cluster, by what (bytes to signature); and how secrets are
    sealed.
    """

    cluster: str
    sign: Callable[[bytes], bytes]
    sealing: Sealing


def round_(
    tx: Tx, signing: Signing, *, among: Collection[str] | None, page_after: str | None
) -> Rounded:
    """Look, plan and carry out: what nobody has looked at yet, and what waits for the nodes
    `among`, or for any node where that is None. With `page_after`, that page of all that wait is
    looked at too: reasons change though nothing could start.
    """
    if not waiting.is_any(tx.connection):
        return NOTHING_WAITS
    seen = view(tx.connection, tx.now, among=among, page_after=page_after)
    decisions = plan(seen.waiting, seen.nodes, tx.now, hold=_hold(tx.connection, seen.waiting))
    changes = Changes(tx)
    changes.load(one.attempt for one in decisions)
    assigns = [one for one in decisions if isinstance(one, Assign)]
    if assigns:
        _assign(changes, assigns, signing, seen)
    told = expired = 0
    doubt = (
        restore.standing(tx.connection) if any(isinstance(d, Expire) for d in decisions) else None
    )
    for decision in decisions:
        row = changes[decision.attempt]
        if isinstance(decision, Wait):
            told += 1
            reasoned = msgspec.structs.replace(row.attempt, reason=decision.reason)
            changes.alter(row.id, attempt=reasoned)
            changes.tell(row, f"waits: {decision.reason}")
        elif isinstance(decision, Expire):
            expired += 1
            restore.end_waiting(changes, row.id, decision.reason, doubt)
    changes.flush()
    more = seen.more and bool(decisions)
    return Rounded(len(seen.waiting), len(assigns), told, expired, more, seen.page_end)


def sign_again(tx: Tx, signing: Signing, *, key: str) -> int:
    """Sign what another key has signed and is still to start, once after each rotation; return how
    much that was. `key` is the id of the key that signs now.
    """
    if meta.get(tx.connection, "signing_key") == key:
        return 0
    meta.put(tx.connection, "signing_key", key)
    # However the key came there: by a rotation, by somebody's hand, or at the first start.
    tx.audit(Act("server.signing-key", SERVER, target=Target("key", key)))
    rows = attempts.assigned(tx.connection)
    changes = Changes(tx)
    changes.take(rows)
    for row in rows:
        if row.envelope is not None:
            signed = order_bytes(_envelope.decode(row.envelope))
            changes.alter(row.id, signature=signing.sign(signed))
    changes.flush()
    return len(rows)


def view(
    connection: Connection,
    now: int,
    *,
    among: Collection[str] | None,
    page_after: str | None,
) -> View:
    """Look at what could change now; with `page_after`, also at that page of all that wait.

    `nodes` of the view are all nodes that what is seen may go to.
    """
    fresh = waiting.fresh(connection, now, PER_ROUND)
    unbound = waiting.for_any(connection, now, PER_ROUND)
    asked: list[str] | None = None
    if among is not None and not unbound and page_after is None:
        asked = list({*among, *(one.target for one in fresh if one.target is not None)})
    busy = attempts.busy(connection, asked)
    placed = nodes.placed(connection, asked)
    seen = {
        one.id: NodeView(one.id, one.name, one.link, one.admin, one.capacity, busy.get(one.id, 0))
        for one in placed
    }
    free = [id_ for id_, node in seen.items() if obstacle(node, node.busy) is None]
    room = max((seen[id_].capacity - seen[id_].busy for id_ in free), default=0)
    each = min(room, PER_NODE)
    bound = waiting.for_nodes(connection, now, free, each=each, limit=PER_ROUND) if free else []
    lists = [bound, unbound, fresh]
    # Cut at the round's end, or at a node's share of it though the node has more room.
    shares = Counter(one.target for one in bound) if room > each else Counter[str | None]()
    more = any(len(found) >= PER_ROUND for found in lists) or each in shares.values()
    page_end = ""
    if page_after is not None:
        page = waiting.page(connection, now, after=page_after, limit=PER_ROUND)
        page_end = page[-1].id if len(page) == PER_ROUND else ""
        lists.append(page)
    pending = {one.id: one for found in lists for one in found}
    # Time-ordered ids: the oldest first.
    ordered = [pending[id_] for id_ in sorted(pending)]
    return View(_waiting(connection, ordered, placed), seen, more, page_end)


def _hold(connection: Connection, waiting_: list[Waiting]) -> str | None:
    """Say why nothing may be placed anew now, or None (P11)."""
    if not any(is_own_idea(one) for one in waiting_):
        return None
    standing = breaker.standing(connection)
    return None if standing is None else breaker.explain(standing)


def _assign(changes: Changes, assigns: list[Assign], signing: Signing, seen: View) -> None:
    tx = changes.tx
    waited = {one.attempt: one for one in seen.waiting}
    block = cluster.reserve_epochs(tx, len(assigns))
    requests = runs.requests(tx.connection, {changes[one.attempt].run_id for one in assigns})
    hashes = {id_: spec_sha256(request.spec) for id_, request in requests.items()}
    sealer = _Sealer(changes, assigns, requests, signing.sealing)
    for number, one in enumerate(assigns):
        row = changes[one.attempt]
        epoch = next_epoch(block.generation, block.first + number)
        try:
            sealed = sealer.seal(row, requests[row.run_id], one.node, epoch)
        except FleetwireError as error:
            changes.apply(refuse(row.attempt, str(error)), node=one.node)
            continue
        envelope = Envelope(
            cluster=signing.cluster,
            node=one.node,
            run=row.run_id,
            attempt=row.id,
            epoch=epoch,
            kind=kind_of(requests[row.run_id].spec),
            spec_sha256=hashes[row.run_id],
            issued_at=tx.now,
            # Whoever is given it last must still be able to start it.
            expires_at=max(row.queue_deadline, tx.now + round(limits.LEASE_S * US)),
            secrets_sha256=sealed_sha256(sealed) if sealed else msgspec.UNSET,
        )
        why = because(waited[one.attempt], seen.nodes)
        changes.apply(assign(row.attempt, node=one.node, epoch=epoch, because=why))
        changes.alter(
            row.id,
            signature=signing.sign(order_bytes(envelope)),
            envelope=_encode(envelope).decode(),
            assigned_at=tx.now,
            incarnation=None,
            # Owner and last deadline from the first moment on (law 8); the offer moves it.
            lost_after=envelope.expires_at + round(limits.LOST_AFTER_S * US),
        )
        tx.nudge(f"node:{one.node}")
    sealer.store()


class _Sealer:
    """Seals the secrets of what a round assigns; costs nothing where nothing has any."""

    def __init__(
        self,
        changes: Changes,
        assigns: list[Assign],
        requests: Mapping[str, RunRequest],
        sealing: Sealing,
    ) -> None:
        named = [one for one in assigns if secrets_of(requests[changes[one.attempt].run_id].spec)]
        self._inner = secrets.Sealer(changes.tx, sealing) if named else None
        of_nodes = {one.node for one in named}
        self._nodes = nodes.sealing(changes.tx.connection, list(of_nodes)) if named else {}
        of_runs = {changes[one.attempt].run_id for one in named}
        self._projects = runs.projects_of(changes.tx.connection, of_runs) if named else {}
        self._submitters = runs.submitters(changes.tx.connection, of_runs) if named else {}
        self._tx = changes.tx

    def seal(self, row: AttemptRow, request: RunRequest, node: str, epoch: int) -> bytes:
        """Return what this attempt is given, sealed for the node. Raises FleetwireError."""
        uses = secrets_of(request.spec)
        if not uses or self._inner is None:
            return b""
        to = self._nodes[node]
        if SECRETS not in to.features:
            raise CannotTakeSecrets(
                f"The agent of node {to.name} ({to.agent_version or 'of no known version'}) "
                "cannot take secrets.",
                hint="Update it.",
            )
        project = self._projects[row.run_id]
        sealed = self._inner.take(project, uses, attempt=row.id, epoch=epoch, key=to.key)
        self._say(row, project, uses, Target("node", node, to.name))
        return sealed

    def _say(self, row: AttemptRow, project: str, uses: Sequence[SecretUse], node: Target) -> None:
        """Write into the audit which secrets are used, in whose name, and where."""
        user, name = self._submitters[row.run_id]
        by = Origin("user", user, name, "run")
        detail = {"run": row.run_id, "attempt": row.id, "node": node.name, "node_id": node.id}
        for use in uses:
            target = Target("secret", name=use.name)
            self._tx.audit(Act("secret.use", by, project, target, detail=detail))

    def store(self) -> None:
        """Store what was sealed."""
        if self._inner is not None:
            self._inner.store()


class CannotTakeSecrets(FleetwireError):
    """A node's agent does not know of secrets: it would run the task without them."""

    code = "cannot-take-secrets"


def _waiting(connection: Connection, pending: list[Pending], placed: list[Placed]) -> list[Waiting]:
    free = {one.run_id for one in pending if one.target is None}
    taken = runs.nodes_of(connection, free) if free else {}
    again = [one.task_id for one in pending if one.target is None and one.number > 1]
    tried = runs.tried(connection, again) if again else {}
    asked = runs.requests(connection, free) if free else {}
    doubt = restore.standing(connection)
    owners = runs.projects_of(connection, free) if free else {}
    candidates = {
        id_: _able(request, _candidates(request, of_project), of_project)
        for id_, request in asked.items()
        for of_project in [[one for one in placed if one.project == owners[id_]]]
    }
    return [
        Waiting(
            attempt=one.id,
            run=one.run_id,
            epoch=one.epoch,
            queue_deadline=one.queue_deadline,
            node=one.target,
            candidates=candidates.get(one.run_id, frozenset()) if one.target is None else _NONE,
            taken=frozenset(taken.get(one.run_id, ())) if one.target is None else _NONE,
            tried=frozenset(tried.get(one.task_id, ())),
            held=held(doubt, one.id, one.target),
            number=one.number,
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


def _able(request: RunRequest, found: frozenset[str], placed: list[Placed]) -> frozenset[str]:
    """Return those whose agents can do what a run needs; all where none can, so that it is refused
    with the reason and does not wait without one.
    """
    if not secrets_of(request.spec):
        return found
    able = {one.id for one in placed if SECRETS in nodes.read_features(one.features)}
    return found & able or found


@lru_cache(maxsize=256)
def _selector(text: str) -> Selector:
    return parse_selector(text)


@lru_cache(maxsize=16_384)
def _labels(text: str) -> Mapping[str, str]:
    return nodes.read_labels(text)
