"""`/healthz` and `/readyz`: bare health, open to whoever asks, and saying nothing else."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from fleetwire.server.api import views, write
from fleetwire.server.api.doors import OPEN, Door
from fleetwire.server.api.parts import parts_of


async def healthz(request: Request) -> Response:
    """Say that the process lives."""
    del request
    return write.answer({"status": "ok"})


async def readyz(request: Request) -> Response:
    """Say whether the server can do its work: the database takes writes and the loops run.

    `warnings` are broken promises that keep nobody from working: to be looked into.
    """
    parts = parts_of(request)
    problems = dict(await parts.readiness())
    answer = {
        "status": "not ready" if problems else "ready",
        "problems": problems,
        "warnings": dict(parts.warnings()),
    }
    return write.answer(answer, 503 if problems else 200)


DOORS = [
    Door(
        "GET", "/healthz", healthz, permission=OPEN, tag="health", answers={200: views.Health}
    ),
    Door(
        "GET", "/readyz", readyz, permission=OPEN, tag="health",
        answers={200: views.Readiness, 503: views.Readiness},
    ),
]  # fmt: skip
