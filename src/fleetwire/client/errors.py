"""What can go wrong between a program and the server, as exceptions of one family.

A problem document (RFC 9457) becomes the class of its status; its stable `code` is kept, so
that a program may match either.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from fleetwire.core.errors import FleetwireError


class ClientError(FleetwireError):
    """A request has no usable answer."""

    code = "client-error"


class ServerUnreachable(ClientError):
    """No server answers at the URL, or none has come back within the patience given."""

    code = "server-unreachable"


class ServerDistrusted(ClientError):
    """What answers cannot prove to be the server: nothing was said to it."""

    code = "server-distrusted"


class AnswerLost(ClientError):
    """The connection ended before the answer to a request that may not be repeated blindly:
    the server may have done it or not.
    """

    code = "answer-lost"


class BadAnswer(ClientError):
    """What answers does not speak Fleetwire's API."""

    code = "bad-answer"


class Problem(ClientError):
    """The server said no. `status` is HTTP's, `members` holds the document's further members."""

    code = "problem"

    def __init__(
        self,
        detail: str,
        *,
        status: int,
        code: str,
        hint: str = "",
        field: str | None = None,
        members: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(detail, hint=hint, field=field)
        self.status = status
        self.code = code
        self.members = members or {}


class Rejected(Problem):
    """400, 413, 422 and other 4xx: the request cannot be accepted as it is."""


class NoSuchNode(Rejected):
    """422 `no-node-matches`: the selector or the list of nodes selects nothing."""

    @property
    def labels(self) -> dict[str, list[str]]:
        """The labels that exist, each with some of its values."""
        known = self.members.get("labels")
        return known if isinstance(known, dict) else {}


class NotLoggedIn(Problem):
    """401: no token or session, or one that is not valid (any more)."""


class NotAllowed(Problem):
    """403: this user may not do this."""


class NotFound(Problem):
    """404: there is no such thing, or this user may not know of it."""


class Conflict(Problem):
    """409: it contradicts what there is."""


class Gone(Problem):
    """410: it was there and has been deleted by retention."""


class ServerFault(Problem):
    """5xx: the fault is the server's."""


class _Document(msgspec.Struct):
    title: str = ""
    detail: str = ""
    code: str = ""
    field: str | None = None
    hint: str | None = None


_CLASSES: Final[dict[int, type[Problem]]] = {
    401: NotLoggedIn,
    403: NotAllowed,
    404: NotFound,
    409: Conflict,
    410: Gone,
}
_KNOWN: Final = frozenset({"type", "title", "status", "detail", "code", "field", "hint"})


def problem_from(status: int, content_type: str, body: bytes) -> Problem:
    """Return the exception for an answer of 400 or above. A body that is no problem document
    (a proxy's page, say) is named by its status, and its first line is kept.
    """
    members: dict[str, Any] = {}
    document = _Document()
    if content_type.partition(";")[0].strip().lower() in {
        "application/problem+json",
        "application/json",
    }:
        try:
            document = msgspec.json.decode(body, type=_Document)
            members = msgspec.json.decode(body, type=dict[str, Any])
        except msgspec.MsgspecError:
            document = _Document()
    detail = document.detail or document.title
    if not detail:
        first = body[:200].decode("utf-8", "replace").strip().partition("\n")[0]
        shown = f": {first}" if first and first.isprintable() else ""
        detail = f"The server answered with status {status}{shown}."
    if document.code == "no-node-matches":
        kind: type[Problem] = NoSuchNode
    else:
        kind = _CLASSES.get(status, ServerFault if status >= 500 else Rejected)
    return kind(
        detail,
        status=status,
        code=document.code or f"http-{status}",
        hint=document.hint or "",
        field=document.field,
        members={key: value for key, value in members.items() if key not in _KNOWN},
    )
