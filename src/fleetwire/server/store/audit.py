"""Rows of the audit: chains that grow at their heads, and checkpoints.

The engine appends what the use cases of a commit have done, after everything else in it: so a
chain's head is locked for the shortest time, by whoever holds all its other locks already. Chains
are locked in the order of their names. Servers that append at once wait, and never for each other.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import Connection as Connection  # noqa: PLC0414 - the type that domain names
from sqlalchemy import and_, bindparam, delete, func, insert, or_, select, text, update

from fleetwire.core.audit import (
    Act,
    Checkpoint,
    Entry,
    Head,
    Sealed,
    SignedCheckpoint,
    follow,
    genesis,
)
from fleetwire.server.store import meta
from fleetwire.server.store.prepared import Prepared
from fleetwire.server.store.tables import audit_chains as chains
from fleetwire.server.store.tables import audit_checkpoints as checkpoints
from fleetwire.server.store.tables import audit_entries as entries

_FIELDS: Final = Entry.__struct_fields__
_COLUMNS: Final = ("chain_id", *_FIELDS, "hash")
_HEAD = select(chains.c.number, chains.c.hash).where(chains.c.id == bindparam("chain"))
_LOCK = Prepared(_HEAD.with_for_update())
# Both databases say it so, and SQLAlchemy says it for each of them apart.
_BEGIN = Prepared(
    text(
        "INSERT INTO audit_chains (id, number, hash) VALUES (:id, 0, :hash) ON CONFLICT DO NOTHING"
    )
)
_PUT = Prepared(
    text(
        "INSERT INTO audit_checkpoints (chain_id, number, cut, at, hash, key, signature) "
        "VALUES (:chain_id, :number, :cut, :at, :hash, :key, :signature) ON CONFLICT DO NOTHING"
    )
)
_MOVE = Prepared(update(chains).where(chains.c.id == bindparam("chain")), ["number", "hash"])
_APPEND = Prepared(insert(entries), _COLUMNS)
_SHOWN = select(entries.c.id, entries.c.chain_id, *(entries.c[name] for name in _FIELDS))
_SEALED = select(*(entries.c[name] for name in _FIELDS), entries.c.hash)
_CHECKPOINTS = select(checkpoints).order_by(checkpoints.c.number, checkpoints.c.cut)
_encode = msgspec.json.Encoder(order="sorted").encode
_detail = msgspec.json.Decoder(dict[str, str])


class Found(NamedTuple):
    """An entry of a list. `id` is its place in the order of all chains."""

    id: int
    chain: str
    entry: Entry


class Filter(msgspec.Struct, frozen=True):
    """Which entries a list has; None is any. `actor` and `target` are ids or names, `since` and
    `until` microseconds since 1970, `until` not among them. `action` may end in `.*`.
    """

    action: str | None = None
    actor: str | None = None
    target: str | None = None
    outcome: str | None = None
    address: str | None = None
    since: int | None = None
    until: int | None = None


def append(connection: Connection, acts: Sequence[Act], now: int) -> None:
    """Append what was done to its chains; the last thing that a transaction does."""
    of_chains: dict[str, list[Act]] = {}
    for act in acts:
        of_chains.setdefault(act.chain, []).append(act)
    rows = []
    for chain in sorted(of_chains):
        head = _lock(connection, chain)
        made = follow(head, of_chains[chain], at=now)
        last = made[-1]
        _MOVE.change(connection, {"chain": chain, "number": last.entry.number, "hash": last.hash})
        rows += [_row(chain, one) for one in made]
    _APPEND.change_all(connection, rows)


def _lock(connection: Connection, chain: str) -> Head:
    row = _LOCK.first(connection, {"chain": chain})
    if row is None:
        # Two that begin one chain at once: the second waits for the first at this row.
        cluster = meta.get(connection, "cluster") or ""
        _BEGIN.change(connection, {"id": chain, "hash": genesis(cluster, chain)})
        row = _LOCK.first(connection, {"chain": chain})
    return Head(row[0], bytes(row[1]))


def _row(chain: str, sealed: Sealed) -> dict[str, Any]:
    row = msgspec.structs.asdict(sealed.entry)
    row["chain_id"] = chain
    row["detail"] = _encode(sealed.entry.detail).decode()
    row["hash"] = sealed.hash
    return row


def page(
    connection: Connection,
    within: Collection[str],
    wanted: Filter,
    *,
    before: int | None,
    limit: int,
) -> list[Found]:
    """Return entries of these chains, newest first, from below the id `before`."""
    query = _SHOWN.where(entries.c.chain_id.in_(within)).order_by(entries.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(entries.c.id < before)
    for condition in _conditions(wanted):
        query = query.where(condition)
    return [Found(row[0], row[1], _entry(row[2:])) for row in connection.execute(query)]


def _conditions(wanted: Filter) -> list[Any]:
    found: list[Any] = []
    if wanted.action is not None:
        group = wanted.action.removesuffix("*")
        found.append(
            entries.c.action == wanted.action
            if group == wanted.action
            else entries.c.action.startswith(group, autoescape=True)
        )
    if wanted.actor is not None:
        found.append(or_(entries.c.actor == wanted.actor, entries.c.actor_name == wanted.actor))
    if wanted.target is not None:
        found.append(or_(entries.c.target == wanted.target, entries.c.target_name == wanted.target))
    if wanted.outcome is not None:
        found.append(entries.c.outcome == wanted.outcome)
    if wanted.address is not None:
        found.append(entries.c.address == wanted.address)
    if wanted.since is not None:
        found.append(entries.c.at >= wanted.since)
    if wanted.until is not None:
        found.append(entries.c.at < wanted.until)
    return found


def stretch(connection: Connection, chain: str, *, after: int, limit: int) -> list[Sealed]:
    """Return a chain's entries behind this number, in their order."""
    query = (
        _SEALED.where(entries.c.chain_id == chain)
        .where(entries.c.number > after)
        .order_by(entries.c.number)
        .limit(limit)
    )
    return [Sealed(_entry(row[:-1]), bytes(row[-1])) for row in connection.execute(query)]


def heads(connection: Connection) -> dict[str, Head]:
    """Return the last entry of every chain."""
    query = select(chains.c.id, chains.c.number, chains.c.hash)
    return {row[0]: Head(row[1], bytes(row[2])) for row in connection.execute(query)}


def head(connection: Connection, chain: str) -> Head:
    """Return the last entry of a chain; number 0 where there is none."""
    row = connection.execute(_HEAD, {"chain": chain}).first()
    return Head(0, b"") if row is None else Head(row[0], bytes(row[1]))


def last_checkpoints(connection: Connection) -> dict[str, tuple[int, int]]:
    """Return, by chain, the number and the time of the last checkpoint."""
    query = select(
        checkpoints.c.chain_id, func.max(checkpoints.c.number), func.max(checkpoints.c.at)
    ).group_by(checkpoints.c.chain_id)
    return {row[0]: (row[1], row[2]) for row in connection.execute(query)}


def list_checkpoints(
    connection: Connection, chain: str, cluster: str, *, after: int = -1, until: int | None = None
) -> list[SignedCheckpoint]:
    """Return a chain's checkpoints behind the number `after`, those at `until` among them, in the
    order of their numbers.
    """
    query = _CHECKPOINTS.where(checkpoints.c.chain_id == chain, checkpoints.c.number > after)
    if until is not None:
        query = query.where(checkpoints.c.number <= until)
    return [
        SignedCheckpoint(
            Checkpoint(
                cluster,
                row.chain_id,
                row.number,
                bytes(row.hash).hex(),
                row.at,
                bytes(row.key),
                bool(row.cut),
            ),
            bytes(row.signature),
        )
        for row in connection.execute(query)
    ]


def put_checkpoint(connection: Connection, signed: SignedCheckpoint) -> None:
    """Store a checkpoint; another server may have stored one of the same place."""
    said = signed.checkpoint
    row = {
        "chain_id": said.chain,
        "number": said.number,
        "cut": said.cut,
        "at": said.at,
        "hash": bytes.fromhex(said.hash),
        "key": said.key,
        "signature": signed.signature,
    }
    _PUT.change(connection, row)


def oldest_since(connection: Connection, chain: str, since: int) -> int | None:
    """Return the number of a chain's first entry from this time on, None where there is none."""
    query = (
        select(func.min(entries.c.number))
        .where(entries.c.chain_id == chain)
        .where(entries.c.at >= since)
    )
    found: int | None = connection.execute(query).scalar()
    return found


def oldest(connection: Connection, chain: str) -> Sealed | None:
    """Return a chain's first entry that there is."""
    found = stretch(connection, chain, after=0, limit=1)
    return found[0] if found else None


def entry(connection: Connection, chain: str, number: int) -> Sealed | None:
    """Return one entry."""
    found = stretch(connection, chain, after=number - 1, limit=1)
    return found[0] if found and found[0].entry.number == number else None


def cut(connection: Connection, chain: str, number: int) -> int:
    """Delete a chain's entries up to this number, and the checkpoints before it; return how many
    entries.
    """
    gone = connection.execute(
        delete(entries).where(and_(entries.c.chain_id == chain, entries.c.number <= number))
    ).rowcount
    connection.execute(
        delete(checkpoints).where(
            and_(checkpoints.c.chain_id == chain, checkpoints.c.number < number)
        )
    )
    return int(gone)


def _entry(row: Sequence[Any]) -> Entry:
    values = dict(zip(_FIELDS, row, strict=True))
    values["detail"] = _detail.decode(values["detail"])
    return Entry(**values)
