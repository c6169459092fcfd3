"""Rows of nodes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import (
    Connection,
    and_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from fleetwire.core.dispatch import LOCKED_OUT, AdminState, LinkState
from fleetwire.core.runs import Target
from fleetwire.server.store import meta
from fleetwire.server.store.attempts import LIVE
from fleetwire.server.store.prepared import Prepared, PreparedIn
from fleetwire.server.store.tables import attempts, former_nodes, nodes, projects


class LinkRow(msgspec.Struct, frozen=True):
    """What a report or an offer has to know of its node (5.3, 5.6, 5.13)."""

    id: str
    name: str
    link_epoch: int
    incarnation: str
    admin: AdminState
    revision: int
    applied: int


class NodeRow(msgspec.Struct, frozen=True, kw_only=True):
    """A node as lists show it. Times are microseconds since 1970, `clock_skew` microseconds."""

    id: str
    name: str
    labels: str
    capacity: int
    admin: AdminState
    link: LinkState
    link_since: int | None
    reconnects: int
    agent_version: str | None
    address: str | None
    clock_skew: int | None
    inventory: str | None
    created_at: int
    last_seen_at: int | None
    project: str


class Greeted(msgspec.Struct, frozen=True):
    """A node as the last hello left it; times are microseconds since 1970. `mark` and `steps` are
    core.clones.Stood.
    """

    link: LinkState
    link_since: int | None
    reconnects: int
    boot_id: str | None
    life: str | None
    mark: str
    steps: int


class Placed(msgspec.Struct, frozen=True):
    """A node as dispatch sees it, before its busy attempts are counted."""

    id: str
    name: str
    link: LinkState
    admin: AdminState
    capacity: int
    labels: str
    project: str
    features: str | None


class Sealed(msgspec.Struct, frozen=True):
    """What secrets are sealed with for a node, and whether its agent can take them."""

    name: str
    key: bytes
    features: frozenset[str]
    agent_version: str | None


_INSERT = insert(nodes)
_LINK_COLUMNS = (
    nodes.c.id,
    nodes.c.name,
    nodes.c.link_epoch,
    nodes.c.incarnation,
    nodes.c.admin,
    nodes.c.revision,
    nodes.c.applied,
)
_LINKS = select(*_LINK_COLUMNS)
# Reports share the row, an accepted hello takes it alone: so a hello waits for the reports of
# the older link, and its reports come after (5.6).
_LINKS_SHARED = PreparedIn(lambda ids: _LINKS.where(nodes.c.id.in_(ids)).with_for_update(read=True))
_LINKS_LOCKED = PreparedIn(lambda ids: _LINKS.where(nodes.c.id.in_(ids)).with_for_update())
_KEYS = PreparedIn(
    lambda ids: select(nodes.c.id, nodes.c.signing_key, nodes.c.admin).where(nodes.c.id.in_(ids))
)
_BEFORE = PreparedIn(
    lambda ids: select(
        nodes.c.id,
        nodes.c.link,
        nodes.c.link_since,
        nodes.c.reconnects,
        nodes.c.boot_id,
        nodes.c.life,
        nodes.c.mark,
        nodes.c.steps,
    ).where(nodes.c.id.in_(ids))
)
_GREETED = (
    "link_epoch",
    "link",
    "link_since",
    "life",
    "incarnation",
    "boot_id",
    "agent_version",
    "address",
    "clock_skew",
    "last_seen_at",
    "mark",
    "steps",
    "features",
)
_GREET = Prepared(update(nodes).where(nodes.c.id == bindparam("the_id")), list(_GREETED))
_UPDATE = update(nodes).where(nodes.c.id == bindparam("the_id"))
_NAME_TAKEN = (
    select(nodes.c.id)
    .where(nodes.c.project_id == bindparam("project"))
    .where(nodes.c.name == bindparam("the_name"))
)
_PLACED_COLUMNS = select(
    nodes.c.id,
    nodes.c.name,
    nodes.c.link,
    nodes.c.admin,
    nodes.c.capacity,
    nodes.c.labels,
    nodes.c.project_id,
    nodes.c.features,
)
_PLACED = Prepared(_PLACED_COLUMNS)
_PLACED_OF = PreparedIn(lambda ids: _PLACED_COLUMNS.where(nodes.c.id.in_(ids)))
_TARGETS = select(nodes.c.project_id, nodes.c.id, nodes.c.name, nodes.c.labels)
_SHOWN = select(
    nodes.c.id,
    nodes.c.name,
    nodes.c.labels,
    nodes.c.capacity,
    nodes.c.admin,
    nodes.c.link,
    nodes.c.link_since,
    nodes.c.reconnects,
    nodes.c.agent_version,
    nodes.c.address,
    nodes.c.clock_skew,
    nodes.c.inventory,
    nodes.c.created_at,
    nodes.c.last_seen_at,
    projects.c.name.label("project"),
).select_from(nodes.join(projects, projects.c.id == nodes.c.project_id))
_labels = msgspec.json.Decoder(dict[str, str])


def insert_node(connection: Connection, row: Mapping[str, Any]) -> None:
    """Store a node."""
    connection.execute(_INSERT, [dict(row)])


def name_taken(connection: Connection, project: str, name: str) -> bool:
    """Say whether a project has a node of this name."""
    given = {"project": project, "the_name": name}
    return connection.execute(_NAME_TAKEN, given).first() is not None


class EnrolledRow(NamedTuple):
    """A node as it enrolled."""

    name: str
    signing_key: bytes
    incarnation: str
    labels: str
    admin: AdminState


def enrolled(connection: Connection, node: str) -> EnrolledRow | None:
    """Return a node as it enrolled."""
    row = connection.execute(
        select(
            nodes.c.name,
            nodes.c.signing_key,
            nodes.c.incarnation,
            nodes.c.labels,
            nodes.c.admin,
        ).where(nodes.c.id == node)
    ).first()
    return None if row is None else EnrolledRow(row[0], bytes(row[1]), *row[2:])


def change(connection: Connection, node: str, **values: object) -> bool:
    """Set columns of a node; say whether it exists."""
    return bool(connection.execute(_UPDATE, {"the_id": node, **values}).rowcount)


def change_all(connection: Connection, changes: Sequence[Mapping[str, Any]]) -> None:
    """Set the same columns of many nodes; each mapping has `the_id` and the values."""
    if changes:
        connection.execute(_UPDATE, [dict(one) for one in changes])


def keys(connection: Connection, ids: Sequence[str]) -> dict[str, tuple[bytes, AdminState]]:
    """Return the signing keys of the nodes that exist, and what an administrator decided."""
    return {id_: (bytes(key), admin) for id_, key, admin in _KEYS.rows(connection, ids)}


def greeted_before(connection: Connection, ids: Sequence[str]) -> dict[str, Greeted]:
    """Return how the nodes that exist stood after their last hello."""
    return {id_: Greeted(*rest) for id_, *rest in _BEFORE.rows(connection, ids)}


def greet_all(connection: Connection, greeted: Sequence[Mapping[str, Any]]) -> None:
    """Store what accepted hellos say; each mapping has `the_id` and the columns of `_GREETED`."""
    _GREET.change_all(connection, greeted)


def links(connection: Connection, ids: Iterable[str]) -> dict[str, LinkRow]:
    """Return the nodes that exist, shared: no hello is accepted until this transaction ends."""
    return _links(connection, _LINKS_SHARED, ids)


def lock(connection: Connection, node: str) -> LinkRow | None:
    """Return a node that this transaction is going to change."""
    return lock_all(connection, [node]).get(node)


def lock_all(connection: Connection, ids: Sequence[str]) -> dict[str, LinkRow]:
    """Return the nodes that exist, for this transaction to change."""
    return _links(connection, _LINKS_LOCKED, ids)


def placed(connection: Connection, ids: Sequence[str] | None = None) -> list[Placed]:
    """Return nodes as dispatch sees them: those of `ids` that exist, or all."""
    rows = _PLACED.rows(connection, {}) if ids is None else _PLACED_OF.rows(connection, ids)
    return [Placed(*row) for row in rows]


_SEALING = PreparedIn(
    lambda ids: select(
        nodes.c.id, nodes.c.name, nodes.c.sealing_key, nodes.c.features, nodes.c.agent_version
    ).where(nodes.c.id.in_(ids))
)


def sealing(connection: Connection, ids: Sequence[str]) -> dict[str, Sealed]:
    """Return how to seal secrets for those of these nodes that exist."""
    return {
        id_: Sealed(name, bytes(key), read_features(features), version)
        for id_, name, key, features, version in _SEALING.rows(connection, ids)
    }


_features = msgspec.json.Decoder(frozenset[str])


def read_features(value: str | None) -> frozenset[str]:
    """Return stored features; none where nothing was stored yet."""
    return frozenset() if value is None else _features.decode(value)


def write_features(features: Iterable[str]) -> str:
    """Return features as they are stored."""
    return msgspec.json.encode(sorted(features)).decode()


class Catalogue:
    """The nodes of one project as selectors and lists of names see them."""

    def __init__(self, targets: list[Target]) -> None:
        self.all = targets
        self._by_word = {one.name: one for one in targets} | {one.id: one for one in targets}

    def named(self, words: Sequence[str]) -> Sequence[Target]:
        """Return the nodes of these names or ids; all nodes where one of them does not exist, so
        that the error can say what does.
        """
        found = [self._by_word.get(word) for word in words]
        known = [one for one in found if one is not None]
        return known if len(known) == len(found) else self.all


_NAMES = PreparedIn(lambda ids: select(nodes.c.id, nodes.c.name).where(nodes.c.id.in_(ids)))


def names(connection: Connection, ids: Sequence[str]) -> dict[str, str]:
    """Return the names, by id, of those of these nodes that exist."""
    return dict(_NAMES.rows(connection, ids))


def all_ids(connection: Connection) -> list[str]:
    """Return the ids of all nodes."""
    return [id_ for (id_,) in connection.execute(select(nodes.c.id))]


def catalogues(connection: Connection) -> Mapping[str, Catalogue]:
    """Return all nodes, by project; a project without nodes may be missing.

    Kept with the connection until `meta`'s word for the catalogue changes: a fleet's labels
    change rarely, and every run asks for them.
    """
    word = meta.get(connection, "catalogue")
    kept: tuple[str, Mapping[str, Catalogue]] | None = connection.info.get("catalogue")
    if kept is not None and kept[0] == word:
        return kept[1]
    targets: dict[str, list[Target]] = {}
    for project, id_, name, labels in connection.execute(_TARGETS):
        targets.setdefault(project, []).append(Target(id_, name, read_labels(labels)))
    found = {project: Catalogue(of_project) for project, of_project in targets.items()}
    if word is not None:
        connection.info["catalogue"] = (word, found)
    return found


def admission(connection: Connection) -> str | None:
    """Return a word that changes whenever a node loses its right to a link."""
    return meta.get(connection, "admission")


def admission_changed(connection: Connection, word: str) -> None:
    """A node may have no link from this commit on. `word` as for `catalogue_changed`."""
    meta.put(connection, "admission", word)


def catalogue_changed(connection: Connection, word: str) -> None:
    """Names or labels changed in this transaction. `word` must be used for no other change: a
    word of a change that was rolled back must never stand for the next one.
    """
    meta.put(connection, "catalogue", word)


def read_labels(value: str) -> dict[str, str]:
    """Return stored labels."""
    return _labels.decode(value)


def page(
    connection: Connection,
    *,
    after: tuple[str, str] | None,
    limit: int,
    within: Collection[str] | None = None,
) -> list[NodeRow]:
    """Return nodes by name and id, from after that pair on; those of the projects `within`, or
    of all.
    """
    query = _SHOWN.order_by(nodes.c.name, nodes.c.id).limit(limit)
    if within is not None:
        query = query.where(nodes.c.project_id.in_(within))
    if after is not None:
        name, id_ = after
        same = and_(nodes.c.name == name, nodes.c.id > id_)
        query = query.where(or_(nodes.c.name > name, same))
    return [_shown(row) for row in connection.execute(query)]


def by_id(connection: Connection, node: str) -> NodeRow | None:
    """Return one node."""
    row = connection.execute(_SHOWN.where(nodes.c.id == node)).first()
    return None if row is None else _shown(row)


def by_word(connection: Connection, word: str, within: Collection[str]) -> list[tuple[str, str]]:
    """Return (id, project) of the nodes of this id or name in these projects; an id wins."""
    query = (
        select(nodes.c.id, nodes.c.project_id)
        .where(or_(nodes.c.id == word, nodes.c.name == word))
        .where(nodes.c.project_id.in_(within))
        .limit(3)
    )
    found = [(id_, project) for id_, project in connection.execute(query)]
    return [one for one in found if one[0] == word] or found


_PROJECT = select(nodes.c.project_id).where(nodes.c.id == bindparam("the_id"))


def project_of(connection: Connection, node: str) -> str | None:
    """Return the project of a node, None if there is no such node."""
    found: str | None = connection.execute(_PROJECT, {"the_id": node}).scalar()
    return found


def by_link(connection: Connection, within: Collection[str] | None) -> dict[LinkState, int]:
    """Return how many nodes there are in each link state that occurs, in these projects or all."""
    query = select(nodes.c.link, func.count()).group_by(nodes.c.link)
    if within is not None:
        query = query.where(nodes.c.project_id.in_(within))
    rows = connection.execute(query)
    return {link: int(many) for link, many in rows}


class Silence(msgspec.Struct, frozen=True):
    """A node as the leases loop sees it."""

    id: str
    name: str
    link: LinkState
    admin: AdminState
    last_seen_at: int | None
    reconnects: int
    clock_skew: int | None


_SILENCES = select(
    nodes.c.id,
    nodes.c.name,
    nodes.c.link,
    nodes.c.admin,
    nodes.c.last_seen_at,
    nodes.c.reconnects,
    nodes.c.clock_skew,
)


def silences(connection: Connection) -> list[Silence]:
    """Return every node's link state as last written."""
    return [Silence(*row) for row in connection.execute(_SILENCES)]


_DELETE = delete(nodes).where(nodes.c.id == bindparam("the_id"))
_FORMER = insert(former_nodes)
_FORMER_NAME = select(former_nodes.c.name).where(former_nodes.c.id == bindparam("the_id"))


def former_name(connection: Connection, node: str) -> str:
    """Return the name of a node that was deleted; "" where there was none."""
    return connection.execute(_FORMER_NAME, {"the_id": node}).scalar() or ""


def remove(connection: Connection, node: str, *, name: str, now: int) -> None:
    """Delete a node; its name stays known for what ran there."""
    connection.execute(_DELETE, {"the_id": node})
    connection.execute(_FORMER, {"id": node, "name": name, "deleted_at": now})


_LET_IN = select(nodes.c.id).where(nodes.c.admin.not_in(LOCKED_OUT))


def let_in(connection: Connection) -> set[str]:
    """Return the nodes that may have a link."""
    return {id_ for (id_,) in connection.execute(_LET_IN)}


_UNCONFIRMED = select(nodes.c.id).where(nodes.c.applied < nodes.c.revision)
_DRAINED = (
    select(nodes.c.id, nodes.c.name)
    .where(nodes.c.admin == "draining")
    .where(nodes.c.applied >= nodes.c.revision)
    .where(~select(attempts.c.id).where(LIVE).where(attempts.c.node_id == nodes.c.id).exists())
)


def unconfirmed(connection: Connection) -> set[str]:
    """Return the nodes that have not confirmed their newest revision of Desired (5.13)."""
    return {id_ for (id_,) in connection.execute(_UNCONFIRMED)}


def drained(connection: Connection) -> list[tuple[str, str]]:
    """Return (id, name) of draining nodes that have confirmed it and on which nothing runs."""
    return [(id_, name) for id_, name in connection.execute(_DRAINED)]


def _links(connection: Connection, statement: PreparedIn, ids: Iterable[str]) -> dict[str, LinkRow]:
    return {row[0]: LinkRow(*row) for row in statement.rows(connection, list(ids))}


def _shown(row: Any) -> NodeRow:  # noqa: ANN401 - a row of _SHOWN
    return NodeRow(**dict(row._mapping))  # noqa: SLF001 - SQLAlchemy's public name for it
