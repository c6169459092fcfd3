"""Errors of the command line and the exit code of each error (interfaces, 1)."""

from __future__ import annotations

from typing import Final

from fleetwire.core.errors import FleetwireError

SUCCEEDED: Final = 0
FAILED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
NOT_ALLOWED: Final = 4
NOT_DONE: Final = 5
TIMED_OUT: Final = 124
CANCELED: Final = 125
DETACHED: Final = 130

_BY_CODE: Final = {
    "server-unreachable": UNREACHABLE,
    "server-distrusted": UNREACHABLE,
    "wrong-ca": UNREACHABLE,
}
_BY_STATUS: Final = {
    400: USAGE,
    401: NOT_ALLOWED,
    403: NOT_ALLOWED,
    404: USAGE,
    409: FAILED,
    410: FAILED,
    413: USAGE,
    422: USAGE,
}


class UsageError(FleetwireError):
    """The command line cannot be understood or asks for something that is not there."""

    code = "usage"


class LocalError(FleetwireError):
    """Something on this machine is in the way."""

    code = "local"


class NotLoggedInHere(FleetwireError):
    """No server or no token is known."""

    code = "not-logged-in"


def exit_code_of(error: FleetwireError) -> int:
    """Return the exit code for an error: by HTTP's status where there is one, else by kind.

    What is refused before anything was asked (a spec, a label, a selector) is wrong usage.
    """
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return _BY_STATUS.get(status, FAILED)
    if isinstance(error, NotLoggedInHere):
        return NOT_ALLOWED
    if isinstance(error, LocalError) or error.code in {"answer-lost", "bad-answer"}:
        return FAILED
    return _BY_CODE.get(error.code, USAGE)
