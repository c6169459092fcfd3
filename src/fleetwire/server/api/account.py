"""`/me/...`: one's own password, second factor and logins. By login only: no API token may."""

from __future__ import annotations

import asyncio
import secrets
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from fleetwire.core import totp
from fleetwire.core.audit import Target
from fleetwire.server.api import views, write
from fleetwire.server.api.doors import Door, caller_of
from fleetwire.server.api.errors import BadCredentials
from fleetwire.server.api.login import check_unchanged
from fleetwire.server.api.noting import address_of, note_of
from fleetwire.server.api.params import CodeParams, OldPasswordParams, OwnPasswordParams
from fleetwire.server.api.parts import Parts, parts_of
from fleetwire.server.domain import factors, people
from fleetwire.server.domain.people import Account, Caller
from fleetwire.server.store import Connection
from fleetwire.server.store.engine import Tx

RECOVERY_BYTES: Final = 10


async def change_password(request: Request, body: OwnPasswordParams) -> Response:
    """Change your password; your other logins end."""
    parts, caller = parts_of(request), caller_of(request)
    proved = await _check_password(request, parts, caller, body.old)
    hashed = await asyncio.to_thread(parts.passwords.hash_blocking, body.new)

    note = note_of(request)

    def change(tx: Tx) -> None:
        check_unchanged(proved, people.account_now(tx, caller.user))
        people.set_password(tx, caller.user, password_hash=hashed)
        people.end_sessions(tx, caller.user, but=caller.credential)
        note.say(tx)

    await parts.database.write(change)
    parts.auth.forget(caller.user)
    return Response(status_code=204)


async def _check_password(request: Request, parts: Parts, caller: Caller, password: str) -> Account:
    """Raise BadCredentials unless it is the caller's: an open browser is not enough. Return whose
    password it was when it was checked.
    """
    address = address_of(request)
    parts.throttle.take(caller.name, address)
    account = await parts.database.read(lambda c: people.account(c, caller.name))
    stored = None if account is None else account.password_hash
    is_right = await parts.passwords.matches(password, stored)
    if account is None or not is_right:
        raise BadCredentials("That is not your password.", hint="Type the one you log in with.")
    parts.throttle.give_back(caller.name, address)
    return account


async def list_sessions(request: Request) -> Response:
    """List your logins, newest first."""
    parts, caller = parts_of(request), caller_of(request)
    now = parts.clock()
    found = await parts.database.read(lambda c: people.list_sessions(c, caller.user, now))
    return write.page(
        [
            {
                "id": one.id,
                "created_at": write.rfc3339(one.created_at),
                "expires_at": write.rfc3339(one.expires_at),
                "address": one.address,
                "browser": one.browser,
                "current": one.hash == caller.credential,
            }
            for one in found
        ],
        None,
    )


async def end_session(request: Request, session: str) -> Response:
    """End one of your logins."""
    parts, caller = parts_of(request), caller_of(request)
    note = note_of(request)

    def end(tx: Tx) -> str:
        ended = people.end_session_named(tx, caller.user, session)
        note.say(tx, target=Target("session", session))
        return ended

    ended = await parts.database.write(end)
    parts.auth.forget(ended)
    return Response(status_code=204)


async def show_totp(request: Request) -> Response:
    """Say whether a second factor is asked for, and how many recovery codes are left."""
    parts, caller = parts_of(request), caller_of(request)

    def look(connection: Connection) -> dict[str, object]:
        return {
            "on": factors.is_on(connection, caller.user),
            "recovery_codes": factors.left(connection, caller.user),
        }

    return write.answer(await parts.database.read(look))


async def begin_totp(request: Request, body: OldPasswordParams) -> Response:
    """Begin a second factor: put the secret into an authenticator app, then confirm a code.

    The secret is in this answer and nowhere else.
    """
    parts, caller = parts_of(request), caller_of(request)
    proved = await _check_password(request, parts, caller, body.password)
    secret = secrets.token_bytes(totp.SECRET_BYTES)
    note = note_of(request)

    def begin(tx: Tx) -> str:
        check_unchanged(proved, people.account_now(tx, caller.user))
        note.say(tx)
        return factors.begin(
            tx, caller.user, name=caller.name, secret=secret, sealing=parts.sealing
        )

    uri = await parts.database.write(begin)
    return write.answer({"secret": totp.as_text(secret), "uri": uri})


async def confirm_totp(request: Request, body: CodeParams) -> Response:
    """Confirm the second factor with a code of it: from now on each login needs one.

    The recovery codes are in this answer and nowhere else; each is good once.
    """
    parts, caller = parts_of(request), caller_of(request)
    recovery = [_recovery_code() for _ in range(factors.RECOVERY_CODES)]
    parts.throttle.take_code(caller.user)
    note = note_of(request)

    def confirm(tx: Tx) -> None:
        factors.confirm(tx, caller.user, body.code, recovery=recovery, sealing=parts.sealing)
        note.say(tx)

    await parts.database.write(confirm)
    parts.throttle.give_code_back(caller.user)
    return write.answer({"recovery_codes": recovery})


def _recovery_code() -> str:
    text = totp.as_text(secrets.token_bytes(RECOVERY_BYTES)).lower()
    return "-".join(text[at : at + 4] for at in range(0, len(text), 4))


async def end_totp(request: Request, body: CodeParams) -> Response:
    """End your second factor, with a code of it or a recovery code."""
    parts, caller = parts_of(request), caller_of(request)
    parts.throttle.take_code(caller.user)
    note = note_of(request)

    def end(tx: Tx) -> None:
        if not factors.use(tx, caller.user, body.code, sealing=parts.sealing):
            raise factors.bad_code()
        factors.end(tx, caller.user)
        note.say(tx)

    await parts.database.write(end)
    parts.throttle.give_code_back(caller.user)
    return Response(status_code=204)


_OWN: Final = "manage-own-account"
DOORS = [
    Door(
        "POST", "/api/v1/me/password", change_password, permission=_OWN,
        action="password.change", tag="people", answers={204: None}, problems=(429,),
    ),
    Door(
        "GET", "/api/v1/me/sessions", list_sessions, permission=_OWN, tag="people",
        answers={200: views.Sessions},
    ),
    Door(
        "DELETE", "/api/v1/me/sessions/{session}", end_session, permission=_OWN,
        action="session.end", tag="people", answers={204: None}, problems=(404,),
    ),
    Door(
        "GET", "/api/v1/me/totp", show_totp, permission=_OWN, tag="people",
        answers={200: views.Totp},
    ),
    Door(
        "POST", "/api/v1/me/totp", begin_totp, permission=_OWN, action="totp.begin", tag="people",
        answers={200: views.NewTotp}, problems=(409, 429),
    ),
    Door(
        "POST", "/api/v1/me/totp/confirm", confirm_totp, permission=_OWN,
        action="totp.confirm", tag="people",
        answers={200: views.RecoveryCodes}, problems=(409, 429),
    ),
    Door(
        "POST", "/api/v1/me/totp/end", end_totp, permission=_OWN, action="totp.end", tag="people",
        answers={204: None}, problems=(409, 429),
    ),
]  # fmt: skip
