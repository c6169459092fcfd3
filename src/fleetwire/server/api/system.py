"""`/system`: the state of the whole, and the one thing that is closed by hand."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from fleetwire import __version__
from fleetwire.core import access
from fleetwire.server.api import views as shapes
from fleetwire.server.api import write
from fleetwire.server.api.doors import Door, caller_of, reach_of
from fleetwire.server.api.noting import note_of
from fleetwire.server.api.parts import Parts, parts_of
from fleetwire.server.domain import breaker, views
from fleetwire.server.store.engine import Tx


async def show(request: Request) -> Response:
    """Show the system: how many nodes there are in your projects, and whether the mass-offline
    breaker is open.
    """
    return write.answer(await _system(parts_of(request), reach_of(request).may))


async def close_breaker(request: Request) -> Response:
    """Close the mass-offline breaker by hand: the system may retry and place anew again.

    Where it is closed already nothing changes.
    """
    parts, by = parts_of(request), caller_of(request).name
    note = note_of(request)

    def close(tx: Tx) -> None:
        was_open = breaker.standing(tx.connection) is not None
        breaker.close(tx, f"{by} says so")
        note.say(tx, was_open=was_open)

    await parts.database.write(close)
    seen = access.reach(caller_of(request).rights, "read").may
    return write.answer(await _system(parts, seen))


async def _system(parts: Parts, within: frozenset[str]) -> dict[str, Any]:
    found = await parts.database.read(lambda c: views.get_system(c, within))
    standing = found.breaker
    return {
        "version": __version__,
        "time": write.rfc3339(parts.clock()),
        "nodes": found.nodes,
        "breaker": None
        if standing is None
        else {
            "since": write.rfc3339(standing.since),
            "gone": standing.gone,
            "of": standing.of,
            "text": breaker.explain(standing),
        },
    }


DOORS = [
    Door(
        "GET", "/api/v1/system", show, permission="read", tag="system",
        answers={200: shapes.System},
    ),
    Door(
        "POST", "/api/v1/system/close-breaker", close_breaker, permission="manage-system",
        action="breaker.close", tag="system", answers={200: shapes.System},
    ),
]  # fmt: skip
