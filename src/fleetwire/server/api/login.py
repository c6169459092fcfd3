"""`/login` and `/me`: who somebody is."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from fleetwire.server.api import views, write
from fleetwire.server.api.auth import COOKIE, check_origin
from fleetwire.server.api.doors import OPEN, Door, caller_of
from fleetwire.server.api.errors import BadCredentials
from fleetwire.server.api.params import LoginParams
from fleetwire.server.api.parts import parts_of
from fleetwire.server.domain import people


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
    await parts.database.write(lambda tx: people.start_session(tx, user, secret=digest))
    response = write.answer({"user": {"id": user, "name": account.name, "role": account.role}})
    response.set_cookie(
        COOKIE,
        secret,
        max_age=people.SESSION_S,
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return response


async def logout(request: Request) -> Response:
    """End the login whose cookie came along. A token is deleted at /tokens instead."""
    parts, caller = parts_of(request), caller_of(request)
    if caller.via == "cookie":
        await parts.database.write(lambda tx: people.end_session(tx, secret=caller.credential))
        parts.auth.forget(caller.credential)
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return response


async def me(request: Request) -> Response:
    """Say who asks."""
    caller = caller_of(request)
    return write.answer(
        {"id": caller.user, "name": caller.name, "role": caller.role, "via": caller.via}
    )


DOORS = [
    Door(
        "POST", "/api/v1/login", login, permission=OPEN, tag="people",
        answers={200: views.LoggedIn}, problems=(401, 403, 429),
    ),
    Door(
        "DELETE", "/api/v1/login", logout, permission="read", tag="people", answers={204: None}
    ),
    Door("GET", "/api/v1/me", me, permission="read", tag="people", answers={200: views.Me}),
]  # fmt: skip
