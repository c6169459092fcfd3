"""Enrolment: tokens that let one machine each become a node, and the becoming."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from fleetwire.core import limits
from fleetwire.core.labels import check_labels
from fleetwire.server.domain.errors import BadEnrolment, BadEnrolmentToken, NameTaken, NotFound
from fleetwire.server.store import enrolment, nodes
from fleetwire.server.store.engine import Tx
from fleetwire.server.store.enrolment import Connection

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
    """A new node."""

    node: str
    name: str
    labels: dict[str, str]


class EnrolmentTokenView(msgspec.Struct, frozen=True):
    """An enrolment token as lists show it: never the token. Times are microseconds since 1970."""

    id: str
    labels: dict[str, str]
    created_by: str
    created_at: int
    expires_at: int
    used_at: int | None
    used_by: str | None


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
) -> EnrolmentTokenView:
    """Store a token (256 random bits of the caller's) for one node; `expires_in` is seconds."""
    check_labels(labels)
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
    )
    row = {
        "id": view.id,
        "hash": digest(token),
        "labels": _encode(view.labels).decode(),
        "created_by": by,
        "created_at": view.created_at,
        "expires_at": view.expires_at,
    }
    enrolment.insert_token(tx.connection, row)
    return view


def list_tokens(
    connection: Connection, *, cursor: str | None, limit: int
) -> tuple[list[EnrolmentTokenView], str | None]:
    """Return enrolment tokens, newest first, and the next page's cursor."""
    rows = enrolment.page(connection, before=cursor, limit=limit + 1)
    views = [
        EnrolmentTokenView(**{**row, "labels": nodes.read_labels(row["labels"])})
        for row in rows[:limit]
    ]
    return views, views[-1].id if len(rows) > limit else None


def delete_token(tx: Tx, token_id: str) -> None:
    """Forget a token; a node that used it stays. Raises NotFound."""
    if not enrolment.delete_token(tx.connection, token_id):
        raise NotFound(f"There is no enrolment token {token_id}.", hint="It may be deleted.")


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
    Raises BadEnrolmentToken (unknown, used and expired alike), NameTaken, BadEnrolment, BadLabel;
    whatever it raises, the token is as good as before.
    """
    _check(name, keys, incarnation, agent_version, capacity)
    check_labels(labels)
    node = ids()
    from_token = enrolment.use(tx.connection, digest(token), node=node, now=tx.now)
    if from_token is None:
        raise BadEnrolmentToken(
            "The enrolment token is not valid (unknown, used or expired).",
            hint="Make a new one: fleetwire tokens create --enrolment.",
        )
    if nodes.name_taken(tx.connection, name):
        raise NameTaken(
            f"There is a node named {name!r} already.",
            hint="Choose another name for this one: fleetwire agent --name NAME.",
            field="name",
        )
    own = {key: value for key, value in labels.items() if key in FROM_AGENT}
    merged = {**labels, **nodes.read_labels(from_token), **own}
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
        },
    )
    nodes.catalogue_changed(tx.connection, node)
    tx.nudge("nodes")
    return Enrolled(node, name, merged)


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
