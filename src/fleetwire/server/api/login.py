"""`/login` and `/me`: who somebody is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final

import structlog
from fastapi import Query
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from fleetwire.core import access
from fleetwire.core.audit import Origin, Target
from fleetwire.core.errors import FleetwireError
from fleetwire.server.api import noting, views, write
from fleetwire.server.api.auth import check_origin, cookie_name, csrf_of
from fleetwire.server.api.doors import OPEN, Door, caller_of
from fleetwire.server.api.errors import BadCredentials, CodeNeeded
from fleetwire.server.api.noting import Note, address_of, note_of
from fleetwire.server.api.oidc import Provider
from fleetwire.server.api.params import LoginParams, OidcBackQuery
from fleetwire.server.api.parts import Parts, parts_of
from fleetwire.server.domain import factors, identities, people, projects
from fleetwire.server.domain.errors import NotFound
from fleetwire.server.domain.people import Account, Place
from fleetwire.server.store.engine import Tx

FLOW_COOKIE: Final = "fleetwire_oidc"
FLOW_S: Final = 600
_log = structlog.get_logger("fleetwire.server.api")


async def login(request: Request, body: LoginParams) -> Response:
    """Log in with user name and password; the answer sets the login cookie.

    The same answer, in the same time, for an unknown user, a wrong password and a disabled user.
    Who has a second factor sends a `code` of it as well (401 `code-needed` asks for it).
    """
    parts = parts_of(request)
    if "origin" in request.headers:  # a page of another site may not log this browser in
        check_origin(request.headers, "POST", request.url.scheme)
    address = address_of(request)
    parts.throttle.take(body.username, address)
    account = await parts.database.read(lambda c: people.account(c, body.username))
    note = note_of(request)
    if account is not None:
        # What is no user's name may be a password, typed into the wrong field.
        _is_about(note, account)
    stored = None if account is None else account.password_hash
    is_right = await parts.passwords.matches(body.password, stored)
    if account is None or account.disabled or not is_right:
        raise BadCredentials(
            "User name and password do not belong together.",
            hint="Check both; the first admin's password is in the server's data folder.",
        )
    parts.throttle.give_back(body.username, address)
    factor = await _second_factor(parts, account, body.code)
    by = "password" if factor is None else "password and second factor"

    def check(tx: Tx, now: Account) -> None:
        check_unchanged(account, now)
        if factors.since(tx.connection, account.id) != factor:
            raise changed_meanwhile()

    secret = await _begin(parts, account, request, by=by, check=check)
    shown = {"id": account.id, "name": account.name, "role": account.role}
    response = write.answer({"user": shown, "csrf": csrf_of(secret)})
    _set_cookie(response, request.url.scheme, secret)
    return response


def _is_about(note: Note, account: Account) -> None:
    """Say to the audit whose login it is, or would have been."""
    by = Origin("user", account.id, account.name, "login", note.by.address)
    note.about(by=by, target=Target("user", account.id, account.name))


def check_unchanged(proved: Account, now: Account) -> None:
    """Raise BadCredentials unless the password that was proved is the account's still: checking
    it takes a tenth of a second, and who was shut out in it is shut out.
    """
    if now.disabled or now.password_hash != proved.password_hash:
        raise changed_meanwhile()


def changed_meanwhile() -> BadCredentials:
    """Return the error of who proved what is not so any more."""
    return BadCredentials(
        "The account was changed while its password was checked.",
        hint="Try again, with the password and the second factor that it has now.",
    )


async def _second_factor(parts: Parts, account: Account, code: str | None) -> int | None:
    """Raise unless no code is needed, or this one is good; return `factors.since` of the one that
    was needed.
    """
    since = await parts.database.read(lambda c: factors.since(c, account.id))
    if since is None:
        return None
    if code is None:
        raise CodeNeeded(
            "The password is right; your second factor is needed as well.",
            hint="Send the code that your authenticator shows, or a recovery code.",
            field="code",
        )
    parts.throttle.take_code(account.id)
    if not await parts.database.write(
        lambda tx: factors.use(tx, account.id, code, sealing=parts.sealing)
    ):
        raise factors.bad_code()
    parts.throttle.give_code_back(account.id)
    return since


async def _begin(  # each argument is one thing that the login rests on
    parts: Parts,
    account: Account,
    request: Request,
    *,
    by: str,
    check: Callable[[Tx, Account], None],
) -> str:
    """Begin a session; return its secret. `by` is what has proved who it is, `check` raises where
    the account, as it is now, is not what that has proved.
    """
    secret = parts.secret()
    place = Place(address_of(request), request.headers.get("user-agent", ""))
    note = note_of(request)
    _is_about(note, account)

    def start(tx: Tx) -> None:
        check(tx, people.account_now(tx, account.id))
        people.start_session(
            tx, account.id, secret=people.digest(secret), ids=parts.ids, place=place
        )
        note.say(tx, by=by, browser=place.browser[:80])

    await parts.database.write(start)
    return secret


def _set_cookie(response: Response, scheme: str, secret: str) -> None:
    response.set_cookie(
        cookie_name(scheme),
        secret,
        max_age=people.SESSION_S,
        path="/",
        secure=scheme == "https",
        httponly=True,
        samesite="strict",
    )


async def ways(request: Request) -> Response:
    """Say how one can log in here: `oidc` is the name of an OpenID provider, or null."""
    provider = parts_of(request).oidc
    return write.answer({"oidc": None if provider is None else provider.settings.name})


async def oidc_begin(request: Request) -> Response:
    """Send the browser to the OpenID provider, to come back with a proof of who somebody is."""
    parts = parts_of(request)
    provider = _provider(parts)
    secret = parts.secret()
    address = address_of(request)
    try:
        # By address alone: nobody can use up the tries of others, nor have us ask without end.
        parts.throttle.take(f"oidc {address}", address)
        response = RedirectResponse(await provider.begin(secret, _back(request)), 303)
        parts.throttle.give_back(f"oidc {address}", address)
    except FleetwireError as error:
        return _not_in(error)
    scheme = request.url.scheme
    response.set_cookie(
        _flow_cookie(scheme),
        secret,
        max_age=FLOW_S,
        path="/",
        secure=scheme == "https",
        httponly=True,
        samesite="lax",  # the provider's page sends the browser back
    )
    return response


async def oidc_back(request: Request, query: Annotated[OidcBackQuery, Query()]) -> Response:
    """Take the browser back from the OpenID provider: it is logged in, or told why not."""
    parts, scheme = parts_of(request), request.url.scheme
    provider = _provider(parts)
    flow = request.cookies.get(_flow_cookie(scheme), "")
    address = address_of(request)
    try:
        parts.throttle.take(f"oidc {address}", address)
        vouched = await provider.finish(
            flow, _back(request), state=query.state or "", code=query.code or ""
        )
        parts.throttle.give_back(f"oidc {address}", address)
        account = await parts.database.write(
            lambda tx: identities.enter(
                tx,
                issuer=vouched.issuer,
                subject=vouched.subject,
                name=vouched.name,
                creates=provider.settings.creates,
                ids=parts.ids,
            )
        )
        secret = await _begin(
            parts, account, request, by="OpenID provider", check=identities.check_enabled
        )
    except FleetwireError as error:
        await noting.refuse(parts, note_of(request), error, by="OpenID provider")
        response: Response = _not_in(error)
    else:
        response = RedirectResponse("/", 303)
        _set_cookie(response, scheme, secret)
    response.delete_cookie(
        _flow_cookie(scheme), path="/", secure=scheme == "https", httponly=True, samesite="lax"
    )
    return response


def _not_in(error: FleetwireError) -> Response:
    """Send the browser back to the sign-in page, which says that it did not work."""
    _log.warning("login at the OpenID provider refused", error=str(error)[:500])
    return RedirectResponse(f"/sign-in?problem={error.code}", 303)


def _provider(parts: Parts) -> Provider:
    if parts.oidc is None:
        raise NotFound(
            "This server has no OpenID provider.", hint="Log in with user name and password."
        )
    return parts.oidc


def _back(request: Request) -> str:
    # The front door has checked that the host is one of ours.
    return f"{request.url.scheme}://{request.headers['host']}/api/v1/login/oidc/callback"


def _flow_cookie(scheme: str) -> str:
    return f"__Host-{FLOW_COOKIE}" if scheme == "https" else FLOW_COOKIE


async def logout(request: Request) -> Response:
    """End the login whose cookie came along. A token is deleted at /tokens instead."""
    parts, caller, note = parts_of(request), caller_of(request), note_of(request)
    note.nothing()  # by token there is no login to end
    if caller.via == "cookie":

        def end(tx: Tx) -> None:
            people.end_session(tx, secret=caller.credential)
            note.say(tx)

        await parts.database.write(end)
        parts.auth.forget(caller.credential)
    response = Response(status_code=204)
    scheme = request.url.scheme
    response.delete_cookie(
        cookie_name(scheme), path="/", secure=scheme == "https", httponly=True, samesite="strict"
    )
    return response


async def me(request: Request) -> Response:
    """Say who asks, and what they may."""
    parts, caller = parts_of(request), caller_of(request)
    rights = caller.rights
    within = access.reach(rights, "read").knows
    found = await parts.database.read(lambda c: projects.of(c, rights, within=within))
    cookie = request.cookies.get(cookie_name(request.url.scheme), "")
    return write.answer(
        {
            "id": caller.user,
            "name": caller.name,
            "role": caller.role,
            "via": caller.via,
            "csrf": csrf_of(cookie) if caller.via == "cookie" else None,
            "permissions": sorted(
                one for one in access.OF_SYSTEM | access.OWN if access.allowed(rights, one)
            ),
            "projects": [write.project(one) for one in found],
        }
    )


DOORS = [
    Door(
        "POST", "/api/v1/login", login, permission=OPEN, action="login", tag="people",
        answers={200: views.LoggedIn}, problems=(401, 403, 429),
    ),
    Door("GET", "/api/v1/login", ways, permission=OPEN, tag="people", answers={200: views.Ways}),
    Door(
        "GET", "/api/v1/login/oidc", oidc_begin, permission=OPEN, tag="people",
        answers={303: None}, problems=(404,),
    ),
    Door(
        "GET", "/api/v1/login/oidc/callback", oidc_back, permission=OPEN,
        action="login", tag="people", answers={303: None}, problems=(404,),
    ),
    Door(
        "DELETE", "/api/v1/login", logout, permission="know-self", action="logout", tag="people",
        answers={204: None},
    ),
    Door("GET", "/api/v1/me", me, permission="know-self", tag="people", answers={200: views.Me}),
]  # fmt: skip
