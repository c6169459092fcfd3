"""`/nodes`: the machines of the fleet."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from fleetwire.core import access
from fleetwire.server.api import cursor, write
from fleetwire.server.api import views as shapes
from fleetwire.server.api.doors import Door, caller_of, reach_of
from fleetwire.server.api.noting import Note, note_of
from fleetwire.server.api.params import DeleteNodeQuery, ListQuery, NodeParams, NodesQuery
from fleetwire.server.api.parts import parts_of
from fleetwire.server.domain import audit, clones, finding, node_story, nodes, removal, views
from fleetwire.server.domain.node_story import Happened
from fleetwire.server.domain.removal import Deleted
from fleetwire.server.store import Connection
from fleetwire.server.store.engine import Tx


async def list_(request: Request, query: Annotated[NodesQuery, Query()]) -> Response:
    """List the nodes by name."""
    after, reach = cursor.parse_after(query.cursor), reach_of(request)
    found = await parts_of(request).database.read(
        lambda c: views.list_nodes(
            c, limit=query.limit, cursor=after, within=finding.within(c, query.project, reach)
        )
    )
    last = found.next_cursor
    shown = [write.node(one) for one in found.items]
    return write.page(shown, cursor.after(last) if last else None)


async def show(request: Request, node: str) -> Response:
    """Show a node, by name, id or unique prefix of its id."""
    reach = reach_of(request)
    found = await parts_of(request).database.read(
        lambda c: views.get_node(c, finding.node(c, node, reach))
    )
    return write.answer(write.node(found))


async def change(request: Request, node: str, body: NodeParams) -> Response:
    """Drain a node, take it out of a drain, or lock it out.

    The answer is the wish: `drained` is shown once the node has confirmed it and runs nothing.
    To lock a node out, and to let it in again, takes the permission `manage-nodes`.
    """
    parts, caller, reach = parts_of(request), caller_of(request), reach_of(request)
    id_ = await parts.database.read(lambda c: finding.node(c, node, reach))
    manages = access.reach(caller.rights, "manage-nodes")
    note = note_of(request)

    def set_admin(tx: Tx) -> None:
        was = nodes.set_admin(
            tx,
            id_,
            body.admin,
            by=caller.name,
            check_lockout=lambda: finding.node(tx.connection, id_, manages),
        )
        say(tx, note, id_, admin=body.admin, was=was)

    await parts.database.write(set_admin)
    found = await parts.database.read(lambda c: views.get_node(c, id_))
    return write.answer(write.node(found))


def say(tx: Tx, note: Note, node: str, **detail: str | int) -> None:
    """Say to the audit what is done to a node, before it is gone."""
    chain, target = audit.of_node(tx.connection, node)
    note.say(tx, chain=chain, target=target, **detail)


async def approve(request: Request, node: str) -> Response:
    """Let a node in that was enrolled with a token that asks for approval."""
    parts, by, reach = parts_of(request), caller_of(request).name, reach_of(request)
    id_ = await parts.database.read(lambda c: finding.node(c, node, reach))
    note = note_of(request)

    def let_in(tx: Tx) -> None:
        nodes.approve(tx, id_, by=by)
        say(tx, note, id_)

    await parts.database.write(let_in)
    return write.answer(write.node(await parts.database.read(lambda c: views.get_node(c, id_))))


async def release(request: Request, node: str) -> Response:
    """Let a quarantined node in again: the first to come with its key is it from then on."""
    parts, by, reach = parts_of(request), caller_of(request).name, reach_of(request)
    id_ = await parts.database.read(lambda c: finding.node(c, node, reach))
    note = note_of(request)

    def let_go(tx: Tx) -> None:
        clones.release(tx, id_, by=by)
        say(tx, note, id_)

    await parts.database.write(let_go)
    return write.answer(write.node(await parts.database.read(lambda c: views.get_node(c, id_))))


async def delete(
    request: Request, node: str, query: Annotated[DeleteNodeQuery, Query()]
) -> Response:
    """Delete a node that is gone: its key is refused from then on, and what it still had is lost.

    A node with a link is deleted only with `force=1`. With `only=waiting` it is turned away, and
    one that was approved meanwhile stays.
    """
    parts, by, reach = parts_of(request), caller_of(request).name, reach_of(request)
    id_ = await parts.database.read(lambda c: finding.node(c, node, reach))
    note, force = note_of(request), query.force == "1"

    def remove(tx: Tx) -> Deleted:
        say(tx, note, id_, force=force)
        return removal.delete(
            tx, id_, word=parts.ids(), by=by, force=force, only_waiting=query.only == "waiting"
        )

    gone = await parts.database.write(remove)
    return write.answer({"id": gone.id, "name": gone.name, "lost": gone.lost})


async def events(request: Request, node: str, query: Annotated[ListQuery, Query()]) -> Response:
    """List what happened to a node, newest first: links, returns and why it was away, drains."""
    before, reach = cursor.parse_number(query.cursor), reach_of(request)

    def find(connection: Connection) -> list[Happened]:
        id_ = finding.node(connection, node, reach)
        return node_story.events(connection, id_, before=before, limit=query.limit + 1)

    found = await parts_of(request).database.read(find)
    return write.take_page(
        found, query.limit, write=write.node_event, cursor=lambda one: cursor.after(str(one.id))
    )


DOORS = [
    Door(
        "GET", "/api/v1/nodes", list_, permission="read", tag="nodes",
        answers={200: shapes.Page[shapes.Node]},
    ),
    Door(
        "GET", "/api/v1/nodes/{node}", show, permission="read", tag="nodes",
        answers={200: shapes.Node}, problems=(404, 409),
    ),
    Door(
        "PATCH", "/api/v1/nodes/{node}", change, permission="drain",
        action="node.change", tag="nodes", answers={200: shapes.Node}, problems=(404, 409),
    ),
    Door(
        "DELETE", "/api/v1/nodes/{node}", delete, permission="manage-nodes",
        action="node.delete", tag="nodes", answers={200: shapes.DeletedNode}, problems=(404, 409),
    ),
    Door(
        "POST", "/api/v1/nodes/{node}/approve", approve, permission="manage-nodes",
        action="node.approve", tag="nodes", answers={200: shapes.Node}, problems=(404, 409),
    ),
    Door(
        "POST", "/api/v1/nodes/{node}/release", release, permission="manage-nodes",
        action="node.release", tag="nodes", answers={200: shapes.Node}, problems=(404, 409),
    ),
    Door(
        "GET", "/api/v1/nodes/{node}/events", events, permission="read", tag="nodes",
        answers={200: shapes.Page[shapes.NodeEvent]}, problems=(404, 409),
    ),
]  # fmt: skip
