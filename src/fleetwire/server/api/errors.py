"""Every error as a problem document (RFC 9457): what happened, why, and what to do.

A client's mistake never leaves a traceback in the log. What nobody foresaw is answered 500 with
an id, and logged once, in one line, under the same id (promises 2, "bad input").
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec
from starlette.responses import Response

from fleetwire.core.errors import FleetwireError, NoNodeMatches

MEDIA_TYPE: Final = "application/problem+json"

# The status of each stable code. A FleetwireError whose code is not here is a refused request
# (422); tests/server/api/test_errors.py walks all subclasses and shows what each becomes.
STATUS: Final[dict[str, int]] = {
    "bad-request": 400,
    "bad-json": 400,
    "bad-host": 400,
    "unauthenticated": 401,
    "bad-credentials": 401,
    "code-needed": 401,
    "bad-code": 401,
    "forbidden": 403,
    "bad-origin": 403,
    "oidc-refused": 403,
    "not-known-here": 403,
    "bad-csrf": 403,
    "bad-enrolment-token": 403,
    "not-found": 404,
    "method-not-allowed": 405,
    "body-too-slow": 408,
    "ambiguous-id": 409,
    "bad-master-key": 500,
    "name-taken": 409,
    "last-admin": 409,
    "no-second-factor": 409,
    "project-in-use": 409,
    "roles-changed": 409,
    "node-at-work": 409,
    "not-admitted": 409,
    "not-quarantined": 409,
    "not-waiting": 409,
    "idempotency-key-reused": 409,
    "log-gone": 410,
    "body-too-large": 413,
    "url-too-long": 414,
    "unsupported-media-type": 415,
    "too-many-logins": 429,
    "too-many-streams": 429,
    "headers-too-large": 431,
    "internal": 500,
    "commit-failed": 503,
    "commit-unknown": 503,
    "database-closed": 503,
    "database-failed": 503,
    "database-unavailable": 503,
    "not-ready": 503,
    "storage-full": 507,
}
UNPROCESSABLE: Final = 422
RETRY_AFTER_S: Final = {503: "1", 507: "10"}


class BadRequest(FleetwireError):
    """The request is not HTTP that this server can read."""

    code = "bad-request"


class BadJson(FleetwireError):
    """The body is not JSON."""

    code = "bad-json"


class Unprocessable(FleetwireError):
    """A field has a value that cannot be accepted, or is not known."""

    code = "bad-field"


class Unauthenticated(FleetwireError):
    """No credential came with the request, or one that is not valid (any more)."""

    code = "unauthenticated"


class BadCredentials(FleetwireError):
    """User name and password do not belong together."""

    code = "bad-credentials"


class CodeNeeded(FleetwireError):
    """The password is right, and a code of the second factor is needed as well."""

    code = "code-needed"


class BadOrigin(FleetwireError):
    """A page of another site asks with this browser's cookie."""

    code = "bad-origin"


class BadCsrf(FleetwireError):
    """A change by cookie does not show the token that goes with it."""

    code = "bad-csrf"


class BadHost(FleetwireError):
    """The request names a host that this server is not (DNS rebinding)."""

    code = "bad-host"


class BodyTooLarge(FleetwireError):
    """The body passes its limit."""

    code = "body-too-large"


class BodyTooSlow(FleetwireError):
    """The body did not come within its time."""

    code = "body-too-slow"


class UrlTooLong(FleetwireError):
    """The path and query pass their limit."""

    code = "url-too-long"


class HeadersTooLarge(FleetwireError):
    """The request's headers pass their limit."""

    code = "headers-too-large"


class UnsupportedMediaType(FleetwireError):
    """The body is of a type that this route does not read."""

    code = "unsupported-media-type"


class TooManyLogins(FleetwireError):
    """Too many wrong passwords. `retry_after` is seconds."""

    code = "too-many-logins"

    def __init__(self, detail: str, *, retry_after: float, hint: str = "") -> None:
        super().__init__(detail, hint=hint)
        self.retry_after = retry_after


class TooManyStreams(FleetwireError):
    """The user has as many open streams as one may have."""

    code = "too-many-streams"


def status_of(error: FleetwireError) -> int:
    """Return the HTTP status of an error."""
    return STATUS.get(error.code, UNPROCESSABLE)


def problem(
    code: str,
    status: int,
    detail: str,
    *,
    field: str | None = None,
    hint: str = "",
    headers: Mapping[str, str] | None = None,
    **more: Any,  # noqa: ANN401 - members that single codes add, such as `labels`
) -> Response:
    """Return the problem document as a response."""
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }
    if field is not None:
        document["field"] = field
    if hint:
        document["hint"] = hint
    document |= more
    return Response(
        msgspec.json.encode(document), status, media_type=MEDIA_TYPE, headers=dict(headers or {})
    )


def problem_of(error: FleetwireError) -> Response:
    """Return the problem document of an error that a person may read."""
    status = status_of(error)
    headers = {}
    more: dict[str, Any] = {}
    if status in RETRY_AFTER_S:
        headers["retry-after"] = RETRY_AFTER_S[status]
    if isinstance(error, TooManyLogins):
        headers["retry-after"] = str(max(1, round(error.retry_after)))
    if status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, NoNodeMatches):
        more["labels"] = error.labels
    return problem(
        error.code,
        status,
        sendable(error.detail),
        field=None if error.field is None else sendable(error.field),
        hint=sendable(error.hint),
        headers=headers,
        **more,
    )


def sendable(text: str) -> str:
    """Return the text with what UTF-8 cannot carry (lone surrogates) made visible."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
