"""What the audit is told of a request: each door that changes something names its action, and its
use case says within its own transaction what was done (P25). What was refused is written by the
door, in a commit of its own.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final, cast

import msgspec
import structlog
from starlette.requests import Request

from fleetwire.core import access, limits
from fleetwire.core.access import Forbidden
from fleetwire.core.audit import NOTHING, SYSTEM, Act, Action, Origin, Target
from fleetwire.core.errors import FleetwireError
from fleetwire.core.shares import origin
from fleetwire.server.api.errors import status_of
from fleetwire.server.api.parts import Parts
from fleetwire.server.domain.people import Caller
from fleetwire.server.store.engine import DatabaseFailed, Tx

REFUSALS: Final = frozenset(
    {
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.CONFLICT,
        HTTPStatus.TOO_MANY_REQUESTS,
    }
)
"""A change that is answered so was refused. What could not be understood was none."""

_KEY: Final = "fleetwire.audit"
_log = structlog.get_logger("fleetwire.server.api")


class Unaudited(FleetwireError):
    """A door has changed something, and has not told the audit: a fault of ours."""

    code = "internal"


class Note:
    """One request as the audit sees it. `by` is what is known before the endpoint has looked
    closer; it may say more (`about`), which a refusal then shows. `likely` is the one project that
    the caller knows of, if it is one.
    """

    def __init__(self, action: Action, by: Origin, likely: str | None = None) -> None:
        self.action = action
        self.by = by
        self.likely = likely
        self.chain = SYSTEM
        self.target = NOTHING
        self.is_said = False

    def about(
        self, *, by: Origin | None = None, chain: str | None = None, target: Target | None = None
    ) -> None:
        """Say who it is, and on what, as soon as it is known."""
        self.by = self.by if by is None else by
        self.chain = self.chain if chain is None else chain
        self.target = self.target if target is None else target

    def say(
        self,
        tx: Tx,
        *,
        chain: str | None = None,
        target: Target | None = None,
        **detail: str | float | bool | None,
    ) -> None:
        """Say, in the transaction that does it, what is done. What is None is not said."""
        self.about(chain=chain, target=target)
        self.is_said = True
        shown = {name: _shown(value) for name, value in detail.items() if value is not None}
        tx.audit(Act(self.action, self.by, self.chain, self.target, detail=shown))

    def nothing(self) -> None:
        """Say that nothing was done: what was asked for is so already."""
        self.is_said = True

    def refusal(self, error: FleetwireError, *, route: str = "", **asked: str) -> Act:
        """Return the refusal of what was asked, in these words.

        Where it is not known of which project it would have been, the words may name what is
        hidden from those who read that of a project: only the system's chain has them.
        """
        chain = self.chain
        detail = {"route": route, **asked} if route else asked
        if isinstance(error, Forbidden) and error.project is not None:
            chain = error.project
        elif isinstance(error, Forbidden) and chain == SYSTEM and self.likely is not None:
            chain, detail = self.likely, {"route": route}
        return Act(self.action, self.by, chain, self.target, "refused", error.code, detail)


def begin(request: Request, action: Action, caller: Caller | None, permission: str) -> Note:
    """Begin the note of a request; `caller` is None where it is not known who asks, `permission`
    is the door's.
    """
    address = address_of(request)
    if caller is None:
        note = Note(action, Origin("stranger", address=address))
    else:
        via = "cookie" if caller.via == "cookie" else f"token:{caller.credential}"
        by = Origin("user", caller.user, caller.name, via, address)
        projects = [one for one, roles in caller.rights.roles.items() if roles]
        # Who knows of one project can have meant no other.
        is_there = permission in access.IN_PROJECT and len(projects) == 1
        note = Note(action, by, projects[0] if is_there else None)
    request.scope[_KEY] = note
    return note


def note_of(request: Request) -> Note:
    """Return the note of a request; only behind a door with an action."""
    return cast("Note", request.scope[_KEY])


def is_refusal(note: Note, error: FleetwireError) -> bool:
    """Say whether an error is to be audited: whatever somebody may not, and each change that was
    refused. That somebody came without a credential, or with none of ours, is not: anybody can.
    """
    status = status_of(error)
    if error.code == "unauthenticated":
        return False
    return status == HTTPStatus.FORBIDDEN or (note.action != "read" and status in REFUSALS)


async def refuse(
    parts: Parts, note: Note, error: FleetwireError, *, route: str = "", **asked: str
) -> None:
    """Write a refusal, in a commit of its own, which who asked need not know has failed. Of many
    alike, by one user or from one origin, only some are written, and how many were not.
    """
    note.nothing()
    key = note.by.id or origin(note.by.address)
    left_out = parts.refusals.take(f"{key} {note.action}", parts.monotonic())
    if left_out is None:
        return
    act = note.refusal(error, route=route, **asked)
    if left_out:
        act = msgspec.structs.replace(act, detail={**act.detail, "left_out": str(left_out)})
    try:
        await parts.database.write(lambda tx: tx.audit(act), grows=True)
    except DatabaseFailed:
        raise
    except FleetwireError as failed:
        _log.warning("a refusal was not audited", action=note.action, error=failed.detail)


def address_of(request: Request) -> str:
    """Return the network address that a request comes from."""
    return request.client.host if request.client else "?"


def _shown(value: str | float | bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)[: limits.AUDIT_TEXT_CHARS]
