"""The audit as the use cases see it: where an act belongs, and what can be read of it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final, NamedTuple

from fleetwire.core import limits
from fleetwire.core.audit import (
    SERVER,
    SYSTEM,
    Act,
    Action,
    Checkpoint,
    Head,
    Origin,
    Sealed,
    SignedCheckpoint,
    Target,
    checkpoint_bytes,
)
from fleetwire.server.domain import cluster
from fleetwire.server.store import Connection, nodes, projects, runs
from fleetwire.server.store import audit as rows
from fleetwire.server.store.audit import Filter as Filter  # noqa: PLC0414 - what this room takes
from fleetwire.server.store.audit import Found as Found  # noqa: PLC0414 - what this room shows
from fleetwire.server.store.engine import Tx

US: Final = 1_000_000
CUT_AT_ONCE: Final = 2_000
"""Entries that one transaction deletes at most."""


class Place(NamedTuple):
    """Where an act belongs, and what it was done to."""

    chain: str
    target: Target


class Stretch(NamedTuple):
    """Entries of a chain in their order, and checkpoints: from the chain's beginning on all that it
    has, because each of them must be known before the first entry is believed; further on those of
    this stretch (of the last one all that are behind it), because a chain may have thousands.
    """

    entries: list[Sealed]
    checkpoints: list[SignedCheckpoint]
    head: Head


def of_run(connection: Connection, run: str) -> Place:
    """Return where an act on a run belongs."""
    return Place(runs.project_of(connection, run) or SYSTEM, Target("run", run))


def of_node(connection: Connection, node: str) -> Place:
    """Return where an act on a node belongs; one that is not there (any more) has no project."""
    name = nodes.names(connection, [node]).get(node, "")
    return Place(nodes.project_of(connection, node) or SYSTEM, Target("node", node, name))


def say_of_node(tx: Tx, action: Action, node: str, *, by: Origin = SERVER, **detail: str) -> None:
    """Write what happened to a node, or what it did, into the audit of its project."""
    place = of_node(tx.connection, node)
    tx.audit(Act(action, by, place.chain, place.target, detail=detail))


def refused_of_node(tx: Tx, action: Action, node: str, *, code: str, **detail: str) -> None:
    """Write what a node, known by its link, tried and was refused."""
    chain, target = of_node(tx.connection, node)
    by = Origin("node", node, target.name, "link")
    tx.audit(Act(action, by, chain, target, "refused", code, detail))


class Hello(NamedTuple):
    """A hello that was refused. `is_verified`: it was signed with the node's own key; `left_out`
    hellos like it were refused before and not written.
    """

    node: str
    address: str
    code: str
    is_verified: bool
    left_out: int


def note_hellos(tx: Tx, refused: Collection[Hello]) -> None:
    """Write hellos that were refused, of nodes that are known or were once: anybody can make up
    an id.
    """
    for hello in refused:
        chain, target = of_node(tx.connection, hello.node)
        name = target.name or nodes.former_name(tx.connection, hello.node)
        if not name:
            continue
        target = Target("node", hello.node, name)
        by = Origin("stranger", via="link", address=hello.address)
        if hello.is_verified:
            by = Origin("node", hello.node, name, "link", hello.address)
        detail = {"left_out": str(hello.left_out)} if hello.left_out else {}
        tx.audit(Act("node.refuse", by, chain, target, "refused", hello.code, detail))


def say_by_shell(tx: Tx, action: Action, *, user: str, **detail: str) -> None:
    """Write what somebody did on the server's machine itself; `user` is of that machine."""
    tx.audit(Act(action, Origin("server", name=user, via="shell"), detail=detail))


def page(
    connection: Connection,
    chains: Collection[str],
    wanted: Filter,
    *,
    before: int | None,
    limit: int,
) -> tuple[list[Found], dict[str, str]]:
    """Return entries of these chains, newest first, and the names of their projects."""
    found = rows.page(connection, chains, wanted, before=before, limit=limit)
    return found, projects.names(connection, {one.chain for one in found})


def stretch(connection: Connection, chain: str, *, after: int, limit: int) -> Stretch:
    """Return the entries of a chain behind this number, with what they are verified by."""
    cluster_id = cluster.id_of(connection) or ""
    entries = rows.stretch(connection, chain, after=after, limit=limit)
    if after <= 0:
        known = rows.list_checkpoints(connection, chain, cluster_id)
    else:
        until = entries[-1].entry.number if len(entries) == limit else None
        known = rows.list_checkpoints(connection, chain, cluster_id, after=after, until=until)
    return Stretch(entries, known, rows.head(connection, chain))


class Key(NamedTuple):
    """What checkpoints are signed with: for which cluster, the public key, and bytes to
    signature.
    """

    cluster: str
    public: bytes
    sign: Callable[[bytes], bytes]

    def checkpoint(self, chain: str, head: Head, *, at: int, cut: bool = False) -> SignedCheckpoint:
        """Return a signed checkpoint at this entry."""
        said = Checkpoint(self.cluster, chain, head.number, head.hash.hex(), at, self.public, cut)
        return SignedCheckpoint(said, self.sign(checkpoint_bytes(said)))


def signed_to_its_head(found: Stretch, chain: str, key: Key, *, at: int) -> Stretch:
    """Return a stretch with a checkpoint by this key at the chain's head. Where none is stored
    there one is made for who asks, and not kept: what a reader verifies or keeps is signed to its
    end however young it is, and reading changes nothing.
    """
    head = found.head
    if not head.number or any(
        (one.checkpoint.number, one.checkpoint.key) == (head.number, key.public)
        for one in found.checkpoints
    ):
        return found
    return found._replace(checkpoints=[*found.checkpoints, key.checkpoint(chain, head, at=at)])


def due(connection: Connection, now: int) -> dict[str, Head]:
    """Return the chains that a checkpoint is due for, with their heads: those that have grown by
    many entries since the last one, or at all and it is some time ago.
    """
    last = rows.last_checkpoints(connection)
    found = {}
    for chain, head in rows.heads(connection).items():
        number, at = last.get(chain, (0, 0))
        grown = head.number - number
        is_old = now - at >= round(limits.AUDIT_CHECKPOINT_S * US)
        if grown >= limits.AUDIT_CHECKPOINT_ENTRIES or (grown > 0 and is_old):
            found[chain] = head
    return found


def sign(tx: Tx, heads: dict[str, Head], key: Key) -> None:
    """Store checkpoints at these entries, which are committed and never change: so no chain need
    be locked for it.
    """
    for chain, head in heads.items():
        rows.put_checkpoint(tx.connection, key.checkpoint(chain, head, at=tx.now))


def cut(tx: Tx, chain: str, *, before: int, key: Key) -> int:
    """Delete the entries of a chain that are older than `before`, some at once, and put a signed
    checkpoint in their place; return how many. What is older and stands behind a newer one (a clock
    was set back) stays.
    """
    connection = tx.connection
    first = rows.oldest(connection, chain)
    head = rows.head(connection, chain)
    if first is None or first.entry.at >= before:
        return 0
    newer = rows.oldest_since(connection, chain, before)
    until = head.number if newer is None else newer - 1
    until = min(until, first.entry.number + CUT_AT_ONCE - 1)
    last = rows.entry(connection, chain, until)
    if last is None:
        return 0
    place = key.checkpoint(chain, Head(until, last.hash), at=tx.now, cut=True)
    rows.put_checkpoint(connection, place)
    gone = rows.cut(connection, chain, until)
    detail = {"first": str(first.entry.number), "last": str(until)}
    tx.audit(Act("audit.cut", SERVER, chain, detail=detail))
    return gone


def chains(connection: Connection) -> list[str]:
    """Return all chains."""
    return sorted(rows.heads(connection))


def ownerless(connection: Connection) -> frozenset[str]:
    """Return the chains that no project's auditor can read: the system's, and those of projects
    that are no more.
    """
    known = chains(connection)
    return frozenset({SYSTEM, *known}) - projects.names(connection, known).keys()
