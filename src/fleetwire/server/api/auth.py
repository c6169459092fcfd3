"""Who calls: an API token or a login cookie, in this order, and where the call may come from.

A cookie is sent by the browser whoever asked for it, so a call by cookie is believed only from a
page of this very server: no request, socket or stream may come from another origin, and a change
must show the token that only our own pages can read (`csrf_of`). A token is sent by a program
that knows it, so its origin says nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

from fleetwire.server.api.errors import BadCsrf, BadOrigin, Unauthenticated
from fleetwire.server.domain import people
from fleetwire.server.domain.people import Caller
from fleetwire.server.store.engine import Database

COOKIE: Final = "fleetwire_session"
CSRF_HEADER: Final = "X-CSRF-Token"
TOKEN_PREFIX: Final = "fw_"  # noqa: S105 - what every token begins with
CREDENTIAL_CHARS: Final = 256
CACHE_S: Final = 3.0
"""How long another server process may go on believing a credential that this one has ended."""

WATCH_S: Final = 1.5
"""How often what lasts looks whether its caller still may: with the above, an end takes at most
5 s to reach every stream of every process."""

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
        self._end = asyncio.Event()
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
        cookie = connection.cookies.get(cookie_name(connection.url.scheme))
        if cookie:
            is_socket = connection.scope["type"] == "websocket"
            method = "" if is_socket else connection.scope["method"]
            check_origin(connection.headers, method, connection.url.scheme)
            caller = await self._known_or_read(cookie, is_token=False)
            if caller is None:
                raise Unauthenticated("Your login has ended.", hint="Log in again.")
            # A browser's socket can have no header of ours; its Origin was there and is ours.
            if method not in _SAFE and not is_socket:
                check_csrf(connection.headers, cookie)
            return caller
        raise Unauthenticated(
            "This needs a login or an API token.",
            hint="Send: Authorization: Bearer fw_..., or log in.",
        )

    async def still(self, caller: Caller) -> Caller | None:
        """Return who the caller of a while ago is now, None where the credential has ended."""
        return await self._of_digest(caller.digest, is_token=caller.via == "token")

    async def until_changed(self, caller: Caller) -> None:
        """Return once the caller's credential has ended, or they may something else than they
        could: what lasts ends then, and who may go on asks anew.
        """
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_S):
                    await self._end.wait()
            now = await self.still(caller)
            if now is None or now.rights != caller.rights:
                return

    def forget(self, *gone: str) -> None:
        """Stop believing these at once (credentials, or all of a user, by `Caller.credential` and
        `Caller.user`): a token or a login has ended, or somebody may something else now.
        """
        self._ended += 1
        known = self._known.items()
        for key in [key for key, (one, _) in known if {one.credential, one.user} & set(gone)]:
            del self._known[key]
        self._end.set()  # all that wait look; who waits from now on waits for the next one
        self._end = asyncio.Event()

    def take_used(self) -> dict[str, int]:
        """Return token ids with the time of their last use, those to be written now.

        A token is here at most once a minute: the time is for people, who look at the day.
        """
        due, self._used = self._used, {}
        self._written.update(due)
        recent = self._clock() - USED_EVERY_US
        self._written = {id_: at for id_, at in self._written.items() if at > recent}
        return due

    async def _known_or_read(self, secret: str, *, is_token: bool) -> Caller | None:
        if len(secret) > CREDENTIAL_CHARS:
            return None
        return await self._of_digest(people.digest(secret), is_token=is_token)

    async def _of_digest(self, key: str, *, is_token: bool) -> Caller | None:
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


def cookie_name(scheme: str) -> str:
    """Return the name of the login cookie. On TLS nobody but this very host can have set it: that
    is what the prefix `__Host-` means to browsers.
    """
    return f"__Host-{COOKIE}" if scheme in {"https", "wss"} else COOKIE


def csrf_of(secret: str) -> str:
    """Return the token that goes with the cookie of this secret: our own pages read it in an
    answer and send it in a header; other sites' pages can do neither.
    """
    return hashlib.sha256(b"fleetwire csrf " + secret.encode("utf-8", "replace")).hexdigest()


def check_csrf(headers: Headers, cookie: str) -> None:
    """Raise BadCsrf unless a change by cookie shows the token that goes with it."""
    given = headers.get(CSRF_HEADER, "").encode("utf-8", "replace")
    if not hmac.compare_digest(given, csrf_of(cookie).encode()):
        raise BadCsrf(
            f"A change by login cookie needs the header {CSRF_HEADER}.",
            hint="GET /api/v1/me says its value; programs use an API token instead.",
        )


def check_stream(connection: HTTPConnection) -> None:
    """Raise BadOrigin unless a stream by cookie was opened by a page of this server: with our
    Origin, or by the browser's own word (`Sec-Fetch-Site`). Neither said is refused.
    """
    site = connection.headers.get("sec-fetch-site")
    if connection.headers.get("origin") is None and site != "same-origin":
        raise BadOrigin(
            "A stream by login cookie must be opened by a page of this server.",
            hint="Programs use an API token instead.",
        )


def check_origin(headers: Headers, method: str, scheme: str = "http") -> None:
    """Raise BadOrigin unless a call by cookie comes from a page of this server.

    Browsers leave `Origin` out of plain reads of their own site, so only writes and sockets must
    have it; where it is there it must be exactly ours, and `Sec-Fetch-Site` must not contradict.
    """
    origin = headers.get("origin")
    if origin is None:
        if method not in _SAFE:
            raise BadOrigin(
                "A change by login cookie needs an Origin header.",
                hint="Browsers send it by themselves; programs use an API token instead.",
            )
    elif not same_origin(origin, headers.get("host", ""), scheme):
        raise BadOrigin(
            f"The page at {origin[:200]!r} may not act with your login here.",
            hint="Use the console of this server, under the name that you opened it with.",
        )
    if headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        raise BadOrigin(
            "A page of another site may not act with your login here.",
            hint="Use the console of this server.",
        )


def same_origin(origin: str, host: str, scheme: str = "http") -> bool:
    """Tell whether an Origin header names exactly the host (and port) of the Host header.

    Compared as wholes: no prefix, no suffix, no other port, and never `null`. A page that came
    in the clear is none of a server on TLS; behind a proxy it may be the other way round.
    """
    ours = {f"https://{host.lower()}"}
    if scheme in {"http", "ws"}:
        ours.add(f"http://{host.lower()}")
    return bool(host) and origin.lower() in ours
