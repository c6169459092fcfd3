"""Who calls: an API token or a login cookie, in this order, and where the call may come from.

A cookie is sent by the browser whoever asked for it, so a call by cookie is believed only from a
page of this very server: a write, and every socket or stream, must not come from another origin.
A token is sent by a program that knows it, so its origin says nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

from fleetwire.server.api.errors import BadOrigin, Unauthenticated
from fleetwire.server.domain import people
from fleetwire.server.domain.people import Caller
from fleetwire.server.store.engine import Database

COOKIE: Final = "fleetwire_session"
TOKEN_PREFIX: Final = "fw_"  # noqa: S105 - what every token begins with
CREDENTIAL_CHARS: Final = 256
CACHE_S: Final = 5.0
"""How long another server process may go on believing a credential that this one has ended."""

CACHED: Final = 4096
USED_EVERY_US: Final = 60_000_000
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Authenticator:
    """Knows callers by their secrets. One per process; not for use from several threads.

    Valid credentials are remembered for a few seconds, so that a busy program costs one look into
    the database now and then; `forget` makes an end immediate in this process.
    """

    def __init__(
        self, database: Database, *, clock: Callable[[], int], monotonic: Callable[[], float]
    ) -> None:
        self._database = database
        self._clock = clock
        self._monotonic = monotonic
        self._known: OrderedDict[str, tuple[Caller, float]] = OrderedDict()
        self._ended = 0
        self._used: dict[str, int] = {}
        self._written: dict[str, int] = {}

    async def caller(self, connection: HTTPConnection) -> Caller:
        """Return who calls, or raise Unauthenticated or BadOrigin."""
        authorizations = connection.headers.getlist("authorization")
        if authorizations:
            scheme, _, secret = authorizations[0].partition(" ")
            if len(authorizations) > 1:
                raise Unauthenticated(
                    "There is more than one Authorization header.", hint="Send one."
                )
            if scheme.lower() != "bearer" or not secret.startswith(TOKEN_PREFIX):
                raise Unauthenticated(
                    "The Authorization header holds no API token.",
                    hint="Send: Authorization: Bearer fw_... (fleetwire tokens create).",
                )
            caller = await self._known_or_read(secret, is_token=True)
            if caller is None:
                raise Unauthenticated(
                    "The API token is not valid: it is unknown, deleted or has expired.",
                    hint="Make a new one: fleetwire tokens create.",
                )
            self._note_used(caller)
            return caller
        cookie = connection.cookies.get(COOKIE)
        if cookie:
            check_origin(connection.headers, connection.scope.get("method", "GET"))
            caller = await self._known_or_read(cookie, is_token=False)
            if caller is not None:
                return caller
            raise Unauthenticated("Your login has ended.", hint="Log in again.")
        raise Unauthenticated(
            "This needs a login or an API token.",
            hint="Send: Authorization: Bearer fw_..., or log in.",
        )

    def forget(self, *credentials: str) -> None:
        """Stop believing these at once (`Caller.credential`): a token or a login has ended."""
        self._ended += 1
        gone = set(credentials)
        for key in [key for key, (caller, _) in self._known.items() if caller.credential in gone]:
            del self._known[key]

    def take_used(self) -> dict[str, int]:
        """Return token ids with the time of their last use, those to be written now.

        A token is here at most once a minute: the time is for people, who look at the day.
        """
        due, self._used = self._used, {}
        self._written.update(due)
        return due

    async def _known_or_read(self, secret: str, *, is_token: bool) -> Caller | None:
        if len(secret) > CREDENTIAL_CHARS:
            return None
        key = people.digest(secret)
        found = self._known.get(key)
        if found is not None and found[0].via == ("token" if is_token else "cookie"):
            caller, until = found
            expired = caller.expires_at is not None and self._clock() >= caller.expires_at
            if self._monotonic() < until and not expired:
                return caller
        look = people.caller_by_token if is_token else people.caller_by_session
        ended = self._ended
        now = self._clock()
        read = await self._database.read(lambda connection: look(connection, key, now))
        if read is None:
            self._known.pop(key, None)
        elif ended == self._ended:  # nothing was ended while we looked: what we saw still holds
            self._known[key] = (read, self._monotonic() + CACHE_S)
            self._known.move_to_end(key)
            while len(self._known) > CACHED:
                self._known.popitem(last=False)
        return read

    def _note_used(self, caller: Caller) -> None:
        now = self._clock()
        if now - self._written.get(caller.credential, 0) >= USED_EVERY_US:
            self._used[caller.credential] = now


def check_origin(headers: Headers, method: str) -> None:
    """Raise BadOrigin unless a call by cookie comes from a page of this server.

    Browsers leave `Origin` out of plain reads of their own site, so only writes must have it;
    where it is there it must be exactly ours, and `Sec-Fetch-Site` must not contradict.
    """
    origin = headers.get("origin")
    if origin is None:
        if method not in _SAFE:
            raise BadOrigin(
                "A change by login cookie needs an Origin header.",
                hint="Browsers send it by themselves; programs use an API token instead.",
            )
    elif not same_origin(origin, headers.get("host", "")):
        raise BadOrigin(
            f"The page at {origin[:200]!r} may not act with your login here.",
            hint="Use the console of this server, under the name that you opened it with.",
        )
    if headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        raise BadOrigin(
            "A page of another site may not act with your login here.",
            hint="Use the console of this server.",
        )


def same_origin(origin: str, host: str) -> bool:
    """Tell whether an Origin header names exactly the host (and port) of the Host header.

    Compared as wholes: no prefix, no suffix, no other port, and never `null`.
    """
    return bool(host) and origin.lower() in {f"http://{host.lower()}", f"https://{host.lower()}"}
