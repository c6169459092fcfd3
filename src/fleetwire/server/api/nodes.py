"""`/nodes`: the machines of the fleet."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from fleetwire.server.api import cursor, write
from fleetwire.server.api import views as shapes
from fleetwire.server.api.doors import Door
from fleetwire.server.api.params import ListQuery
from fleetwire.server.api.parts import parts_of
from fleetwire.server.domain import views


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


DOORS = [
    Door(
        "GET", "/api/v1/nodes", list_, permission="read", tag="nodes",
        answers={200: shapes.Page[shapes.Node]},
    ),
    Door(
        "GET", "/api/v1/nodes/{node}", show, permission="read", tag="nodes",
        answers={200: shapes.Node}, problems=(404, 409),
    ),
]  # fmt: skip
