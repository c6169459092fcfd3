"""Enrolment: tokens that let one machine each become a node, and the becoming."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping
from typing import Final

import msgspec

from fleetwire.core import access, limits, tickets
from fleetwire.core.audit import SYSTEM, Act, Origin, Target
from fleetwire.core.errors import FleetwireError
from fleetwire.core.labels import check_labels
from fleetwire.server.domain.errors import BadEnrolment, BadEnrolmentToken, NameTaken, NotFound
from fleetwire.server.store import enrolment, nodes, projects
from fleetwire.server.store.engine import Tx
from fleetwire.server.store.enrolment import Connection, Found

US: Final = 1_000_000
KEY_BYTES: Final = 32
TOKEN_DEFAULT_S: Final = 3600
TOKEN_LONGEST_S: Final = 7 * 24 * 3600
FROM_AGENT: Final = frozenset({"os", "arch", "hostname"})
"""Labels that only the machine itself can know; no token overrides them."""

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_encode = msgspec.json.Encoder(order="sorted").encode


class Keys(msgspec.Struct, frozen=True):
    """A node's public keys: Ed25519 to sign, X25519 to seal; 32 raw bytes each."""

    signing: bytes
    sealing: bytes


class Enrolled(msgspec.Struct, frozen=True):
    """A new node. `waits` for approval before it may link."""

    node: str
    name: str
    labels: dict[str, str]
    waits: bool = False


class EnrolmentTokenView(msgspec.Struct, frozen=True):
    """An enrolment token as lists show it: never the token. Times are microseconds since 1970."""

    id: str
    labels: dict[str, str]
    created_by: str
    created_at: int
    expires_at: int
    used_at: int | None
    used_by: str | None
    project: str
    name_pattern: str | None = None
    network: str | None = None
    approval: bool = False


class Use(msgspec.Struct, frozen=True):
    """That somebody has shown a token. `at` is microseconds since 1970, `token_id` None where there
    is no such token, `outcome` "enrolled", or why not.
    """

    id: int
    at: int
    token_id: str | None
    node_id: str | None
    name: str
    address: str | None
    outcome: str


def digest(token: str) -> str:
    """Return the hash under which a token is stored."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def create_token(
    tx: Tx,
    token: str,
    *,
    labels: Mapping[str, str],
    expires_in: float | None,
    by: str,
    ids: Callable[[], str],
    name_pattern: str | None = None,
    network: str | None = None,
    approval: bool = False,
    project: str = access.DEFAULT_PROJECT,
) -> EnrolmentTokenView:
    """Store a token (256 random bits of the caller's) for one node of a project; `expires_in` is
    seconds. It is good only for names like `name_pattern`, from an address in `network`; with
    `approval` its node may do nothing until a person has let it in.
    """
    check_labels(labels)
    tickets.check(name_pattern, network)
    lasts = TOKEN_DEFAULT_S if expires_in is None else expires_in
    if not 0 < lasts <= TOKEN_LONGEST_S:
        raise BadEnrolment(
            f"An enrolment token cannot last {lasts} seconds.",
            hint=f"Use more than 0 and at most {TOKEN_LONGEST_S}.",
            field="expires_in",
        )
    view = EnrolmentTokenView(
        id=ids(),
        labels=dict(labels),
        created_by=by,
        created_at=tx.now,
        expires_at=tx.now + round(lasts * US),
        used_at=None,
        used_by=None,
        name_pattern=name_pattern,
        network=network,
        approval=approval,
        project=projects.names(tx.connection, [project])[project],
    )
    row = {
        "id": view.id,
        "hash": digest(token),
        "labels": _encode(view.labels).decode(),
        "created_by": by,
        "created_at": view.created_at,
        "expires_at": view.expires_at,
        "name_pattern": name_pattern,
        "network": network,
        "approval": approval,
        "project_id": project,
    }
    enrolment.insert_token(tx.connection, row)
    return view


def list_tokens(
    connection: Connection,
    *,
    cursor: str | None,
    limit: int,
    within: Collection[str] | None = None,
) -> tuple[list[EnrolmentTokenView], str | None]:
    """Return enrolment tokens of these projects or of all, newest first, and the next page's
    cursor.
    """
    rows = enrolment.page(connection, before=cursor, limit=limit + 1, within=within)
    views = [
        EnrolmentTokenView(**{**row, "labels": nodes.read_labels(row["labels"])})
        for row in rows[:limit]
    ]
    return views, views[-1].id if len(rows) > limit else None


def delete_token(tx: Tx, token_id: str, *, within: Collection[str] | None = None) -> str:
    """Forget a token of one of these projects or of any; a node that used it stays. Return its
    project. Raises NotFound.
    """
    project = enrolment.project_of(tx.connection, token_id)
    if project is None or not enrolment.delete_token(tx.connection, token_id, within=within):
        raise NotFound(f"There is no enrolment token {token_id}.", hint="It may be deleted.")
    return project


def enrol(
    tx: Tx,
    token: str,
    name: str,
    keys: Keys,
    incarnation: str,
    labels: Mapping[str, str],
    agent_version: str,
    capacity: int,
    address: str | None,
    ids: Callable[[], str],
) -> Enrolled:
    """Make a node of a machine that shows a token.

    The token's labels win over the agent's, but what only the machine knows (`FROM_AGENT`).
    The same machine asking again (name, key and incarnation) gets the same answer. Raises
    BadEnrolmentToken (unknown, used, expired and bound to others alike), NameTaken, BadEnrolment,
    BadLabel; whatever it raises, the token is as good as before.
    """
    _check(name, keys, incarnation, agent_version, capacity)
    check_labels(labels)
    node = ids()
    found = enrolment.find(tx.connection, digest(token))
    if found is not None and found.used_by is not None:
        before = nodes.enrolled(tx.connection, found.used_by)
        if before is not None and before[:3] == (name, keys.signing, incarnation):
            # Its answer was lost, and it asks again with what it had made durable before it asked.
            waits = before.admin == "waiting"
            return Enrolled(found.used_by, name, nodes.read_labels(before.labels), waits)
    if (
        found is None
        or _objection(found, name, address, tx.now) is not None
        or not enrolment.use(tx.connection, digest(token), node=node, now=tx.now)
    ):
        raise BadEnrolmentToken(
            "The enrolment token is not valid (unknown, used, expired, or for other machines).",
            hint="Make a new one: fleetwire tokens create --enrolment.",
        )
    if nodes.name_taken(tx.connection, found.project, name):
        raise NameTaken(
            f"There is a node named {name!r} already.",
            hint="Choose another name for this one: fleetwire agent --name NAME.",
            field="name",
        )
    own = {key: value for key, value in labels.items() if key in FROM_AGENT}
    merged = {**labels, **nodes.read_labels(found.labels), **own}
    check_labels(merged)
    nodes.insert_node(
        tx.connection,
        {
            "id": node,
            "name": name,
            "signing_key": keys.signing,
            "sealing_key": keys.sealing,
            "labels": _encode(merged).decode(),
            "capacity": capacity,
            "incarnation": incarnation,
            "agent_version": agent_version,
            "address": address,
            "created_at": tx.now,
            "admin": "waiting" if found.approval else "active",
            "project_id": found.project,
        },
    )
    nodes.catalogue_changed(tx.connection, node)
    tx.nudge("nodes")
    record_enrolment_use(tx, token, node=node, name=name, address=address, outcome="enrolled")
    return Enrolled(node, name, merged, bool(found.approval))


def record_enrolment_use(
    tx: Tx,
    token: str,
    *,
    name: str,
    address: str | None,
    outcome: str,
    node: str | None = None,
    left_out: int = 0,
) -> None:
    """Record that somebody has shown a token, taken or not. This is the one place where the audit
    log learns of it.
    """
    found = enrolment.find(tx.connection, digest(token))
    row = {
        "at": tx.now,
        "token_id": None if found is None else found.id,
        "project_id": None if found is None else found.project,
        "node_id": node,
        "name": name[: limits.NAME_CHARS],
        "address": address,
        "outcome": outcome[:255],
    }
    enrolment.record_use(tx.connection, row)
    is_taken = node is not None
    act = Act(
        "node.enrol",
        Origin("stranger", name=name, via="enrolment token", address=address or ""),
        SYSTEM if found is None else found.project,
        Target("node", node or "", name),
        "done" if is_taken else "refused",
        "" if is_taken else outcome.removeprefix("refused: "),
        {} if found is None else {"token": found.id},
    )
    if left_out:
        act = msgspec.structs.replace(act, detail={**act.detail, "left_out": str(left_out)})
    tx.audit(act)


def record_refusal(
    tx: Tx,
    token: str,
    *,
    name: str,
    address: str | None,
    error: FleetwireError,
    left_out: int = 0,
) -> None:
    """Record a use that was refused, with the reason that who showed the token was not told;
    `left_out` before it were refused and not recorded.
    """
    found = enrolment.find(tx.connection, digest(token))
    why = error.code
    if isinstance(error, BadEnrolmentToken):
        why = "unknown token" if found is None else _objection(found, name, address, tx.now) or why
    outcome = f"refused: {why}"
    record_enrolment_use(tx, token, name=name, address=address, outcome=outcome, left_out=left_out)


def list_uses(
    connection: Connection, *, before: int | None, limit: int, within: Collection[str]
) -> tuple[list[Use], int | None]:
    """Return uses of these projects' enrolment tokens, newest first, and the next page's cursor.
    What was never a token here is for those of the project `default`.
    """
    unknown = access.DEFAULT_PROJECT in within
    rows = enrolment.uses_page(
        connection, before=before, limit=limit + 1, within=within, unknown=unknown
    )
    found = [Use(**row) for row in rows[:limit]]
    return found, found[-1].id if len(rows) > limit else None


def _objection(found: Found, name: str, address: str | None, now: int) -> str | None:
    if found.used_at is not None:
        return "used before"
    if found.expires_at <= now:
        return "expired"
    return tickets.objection(
        name_pattern=found.name_pattern, network=found.network, name=name, address=address
    )


def _check(name: str, keys: Keys, incarnation: str, agent_version: str, capacity: int) -> None:
    if len(name) > limits.NAME_CHARS or not _NAME.fullmatch(name):
        raise BadEnrolment(
            f"{name[:80]!r} is not a name for a node.",
            hint="Use letters, digits and . _ - inside, at most 128 characters.",
            field="name",
        )
    for field, key in (("signing_key", keys.signing), ("sealing_key", keys.sealing)):
        if len(key) != KEY_BYTES:
            raise BadEnrolment(
                f"The {field} has {len(key)} bytes.", hint="A key has 32 raw bytes.", field=field
            )
    if not 16 <= len(incarnation) <= 64 or not incarnation.isprintable():
        raise BadEnrolment(
            "The incarnation is not 16 to 64 printable characters.",
            hint="It is a random word of the state directory.",
            field="incarnation",
        )
    if len(agent_version) > 256 or not agent_version.isprintable():
        raise BadEnrolment("The agent's version is not a word.", field="agent_version")
    if not 1 <= capacity <= limits.CAPACITY:
        raise BadEnrolment(
            f"A capacity of {capacity} is not possible.",
            hint=f"Use 1 to {limits.CAPACITY} attempts at a time.",
            field="capacity",
        )
