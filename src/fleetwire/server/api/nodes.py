"""`/nodes`: the machines of the fleet."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from fleetwire.server.api import cursor, write
from fleetwire.server.api import views as shapes
from fleetwire.server.api.doors import Door, caller_of
from fleetwire.server.api.params import DeleteNodeQuery, ListQuery, NodeParams
from fleetwire.server.api.parts import parts_of
from fleetwire.server.domain import clones, node_story, nodes, removal, views
from fleetwire.server.domain.node_story import Happened
from fleetwire.server.store import Connection


async def list_(request: Request, query: Annotated[ListQuery, Query()]) -> Response:
    """List the nodes by name."""
    after = cursor.parse_after(query.cursor)
    found = await parts_of(request).database.read(
        lambda c: views.list_nodes(c, limit=query.limit, cursor=after)
    )
    last = found.next_cursor
    shown = [write.node(one) for one in found.items]
    return write.page(shown, cursor.after(last) if last else None)


async def show(request: Request, node: str) -> Response:
    """Show a node, by name, id or unique prefix of its id."""
    found = await parts_of(request).database.read(lambda c: views.get_node(c, node))
    return write.answer(write.node(found))


async def change(request: Request, node: str, body: NodeParams) -> Response:
    """Drain a node, take it out of a drain, or lock it out.

    The answer is the wish: `drained` is shown once the node has confirmed it and runs nothing.
    """
    parts, by = parts_of(request), caller_of(request).name
    id_ = (await parts.database.read(lambda c: views.get_node(c, node))).id
    await parts.database.write(lambda tx: nodes.set_admin(tx, id_, body.admin, by=by))
    found = await parts.database.read(lambda c: views.get_node(c, id_))
    return write.answer(write.node(found))


async def approve(request: Request, node: str) -> Response:
    """Let a node in that was enrolled with a token that asks for approval."""
    parts, by = parts_of(request), caller_of(request).name
    id_ = (await parts.database.read(lambda c: views.get_node(c, node))).id
    await parts.database.write(lambda tx: nodes.approve(tx, id_, by=by))
    return write.answer(write.node(await parts.database.read(lambda c: views.get_node(c, id_))))


async def release(request: Request, node: str) -> Response:
    """Let a quarantined node in again: the first to come with its key is it from then on."""
    parts, by = parts_of(request), caller_of(request).name
    id_ = (await parts.database.read(lambda c: views.get_node(c, node))).id
    await parts.database.write(lambda tx: clones.release(tx, id_, by=by))
    return write.answer(write.node(await parts.database.read(lambda c: views.get_node(c, id_))))


async def delete(
    request: Request, node: str, query: Annotated[DeleteNodeQuery, Query()]
) -> Response:
    """Delete a node that is gone: its key is refused from then on, and what it still had is lost.

    A node with a link is deleted only with `force=1`.
    """
    parts, by = parts_of(request), caller_of(request).name
    id_ = (await parts.database.read(lambda c: views.get_node(c, node))).id
    gone = await parts.database.write(
        lambda tx: removal.delete(tx, id_, word=parts.ids(), by=by, force=query.force == "1")
    )
    return write.answer({"id": gone.id, "name": gone.name, "lost": gone.lost})


async def events(request: Request, node: str, query: Annotated[ListQuery, Query()]) -> Response:
    """List what happened to a node, newest first: links, returns and why it was away, drains."""
    before = cursor.parse_number(query.cursor)

    def find(connection: Connection) -> list[Happened]:
        id_ = views.get_node(connection, node).id
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
        "PATCH", "/api/v1/nodes/{node}", change, permission="manage-nodes", tag="nodes",
        answers={200: shapes.Node}, problems=(404, 409),
    ),
    Door(
        "DELETE", "/api/v1/nodes/{node}", delete, permission="manage-nodes", tag="nodes",
        answers={200: shapes.DeletedNode}, problems=(404, 409),
    ),
    Door(
        "POST", "/api/v1/nodes/{node}/approve", approve, permission="manage-nodes", tag="nodes",
        answers={200: shapes.Node}, problems=(404, 409),
    ),
    Door(
        "POST", "/api/v1/nodes/{node}/release", release, permission="manage-nodes", tag="nodes",
        answers={200: shapes.Node}, problems=(404, 409),
    ),
    Door(
        "GET", "/api/v1/nodes/{node}/events", events, permission="read", tag="nodes",
        answers={200: shapes.Page[shapes.NodeEvent]}, problems=(404, 409),
    ),
]  # fmt: skip
