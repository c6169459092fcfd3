"""`/login` and `/me`: who somebody is."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from fleetwire.core import access
from fleetwire.server.api import views, write
from fleetwire.server.api.auth import check_origin, cookie_name, csrf_of
from fleetwire.server.api.doors import OPEN, Door, caller_of
from fleetwire.server.api.errors import BadCredentials
from fleetwire.server.api.params import LoginParams
from fleetwire.server.api.parts import parts_of
from fleetwire.server.domain import people, projects
from fleetwire.server.domain.people import Place


async def login(request: Request, body: LoginParams) -> Response:
    """Log in with user name and password; the answer sets the login cookie.

    The same answer, in the same time, for an unknown user, a wrong password and a disabled user.
    """
    parts = parts_of(request)
    if "origin" in request.headers:  # a page of another site may not log this browser in
        check_origin(request.headers, "POST")
    address = request.client.host if request.client else "?"
    parts.throttle.take(body.username, address)
    account = await parts.database.read(lambda c: people.account(c, body.username))
    stored = None if account is None else account.password_hash
    is_right = await parts.passwords.matches(body.password, stored)
    if account is None or account.disabled or not is_right:
        raise BadCredentials(
            "User name and password do not belong together.",
            hint="Check both; the first admin's password is in the server's data folder.",
        )
    parts.throttle.give_back(body.username, address)
    secret = parts.secret()
    digest = people.digest(secret)
    user = account.id
    place = Place(address, request.headers.get("user-agent", ""))
    await parts.database.write(
        lambda tx: people.start_session(tx, user, secret=digest, ids=parts.ids, place=place)
    )
    shown = {"id": user, "name": account.name, "role": account.role}
    response = write.answer({"user": shown, "csrf": csrf_of(secret)})
    set_cookie(response, request.url.scheme, secret)
    return response


def set_cookie(response: Response, scheme: str, secret: str) -> None:
    """Give the browser its login cookie."""
    response.set_cookie(
        cookie_name(scheme),
        secret,
        max_age=people.SESSION_S,
        path="/",
        secure=scheme == "https",
        httponly=True,
        samesite="strict",
    )


async def logout(request: Request) -> Response:
    """End the login whose cookie came along. A token is deleted at /tokens instead."""
    parts, caller = parts_of(request), caller_of(request)
    if caller.via == "cookie":
        await parts.database.write(lambda tx: people.end_session(tx, secret=caller.credential))
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
        "POST", "/api/v1/login", login, permission=OPEN, tag="people",
        answers={200: views.LoggedIn}, problems=(401, 403, 429),
    ),
    Door(
        "DELETE", "/api/v1/login", logout, permission="know-self", tag="people",
        answers={204: None},
    ),
    Door("GET", "/api/v1/me", me, permission="know-self", tag="people", answers={200: views.Me}),
]  # fmt: skip
