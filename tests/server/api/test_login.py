from __future__ import annotations

import time
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Any

import argon2
import pytest

from fleetwire.core import limits
from fleetwire.server import app
from fleetwire.server.api.errors import TooManyLogins
from fleetwire.server.api.passwords import Passwords
from fleetwire.server.api.throttle import ACCOUNT, ADDRESS, BUCKETS, PAIR, LoginThrottle
from fleetwire.server.domain import people
from fleetwire.server.store import tables

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.server.api.conftest import Server


def test_login_cookie_me_logout(server: Server) -> None:
    answer = server.call(
        "POST", "/api/v1/login", {"username": "admin", "password": server.password}, token=None
    )
    assert answer.status == 200
    user = answer.json["user"]
    assert (user["name"], user["role"]) == ("admin", "admin")
    cookie = SimpleCookie(answer.headers["set-cookie"])["fleetwire_session"]
    assert cookie["httponly"]
    assert cookie["samesite"].lower() == "strict"
    assert cookie["path"] == "/"
    page = {"Cookie": f"fleetwire_session={cookie.value}", "Origin": server.origin}
    page["X-CSRF-Token"] = answer.json["csrf"]
    me = server.call("GET", "/api/v1/me", headers=page, token=None)
    assert me.json["csrf"] == page["X-CSRF-Token"]
    assert {**me.json, **user, "via": "cookie"} == me.json
    assert me.json["projects"][0]["name"] == "default"
    assert server.call("DELETE", "/api/v1/login", headers=page, token=None).status == 204
    assert server.call("GET", "/api/v1/me", headers=page, token=None).status == 401


def test_me_by_token(server: Server) -> None:
    assert server.call("GET", "/api/v1/me").json["via"] == "token"


def test_the_cookie_is_stored_as_a_hash_only(server: Server) -> None:
    secret = server.login()["Cookie"].partition("=")[2]
    rows = server.read(lambda c: c.execute(tables.sessions.select()).mappings().all())
    assert people.digest(secret) in {row["hash"] for row in rows}
    assert all(secret not in str(dict(row)) for row in rows)


def test_an_expired_session_is_refused(new_server: Callable[..., Server]) -> None:
    server = new_server()
    page = server.login()
    server.write(
        lambda tx: tx.connection.execute(tables.sessions.update().values(expires_at=tx.now))
    )
    assert server.call("GET", "/api/v1/me", headers=page, token=None).status == 401


def test_unknown_user_wrong_password_and_disabled_user_look_alike(
    new_server: Callable[..., Server],
) -> None:
    server = new_server()
    unknown = server.call("POST", "/api/v1/login", {"username": "eve", "password": "x"}, token=None)
    wrong = server.call("POST", "/api/v1/login", {"username": "admin", "password": "x"}, token=None)
    server.write(lambda tx: tx.connection.execute(tables.users.update().values(disabled=True)))
    disabled = server.call(
        "POST", "/api/v1/login", {"username": "admin", "password": server.password}, token=None
    )
    assert (unknown.status, unknown.code) == (401, "bad-credentials")
    assert unknown.body == wrong.body == disabled.body
    # and what a disabled user had is worth nothing any more, once this process has to look
    server.process.auth._known.clear()
    assert server.call("GET", "/api/v1/me").status == 401


def test_an_unknown_user_costs_the_same_work_as_a_wrong_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    verified: list[str] = []
    original = argon2.PasswordHasher.verify

    def verify(self: argon2.PasswordHasher, stored: str, password: str) -> bool:
        verified.append(stored.rpartition("$")[0].rpartition("$")[0])  # the parameters
        return original(self, stored, password)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", verify)
    passwords = Passwords()
    stored = passwords.hash_blocking("right")
    assert passwords._matches("right", stored)
    assert not passwords._matches("wrong", stored)
    assert not passwords._matches("wrong", None)
    assert not passwords._matches("wrong", "no hash")
    assert len(set(verified[:3])) == 1
    assert verified[0].startswith("$argon2id$")


def test_the_first_admin_is_made_once(new_server: Callable[..., Server], capfd: Any) -> None:
    server = new_server()
    path = server.data / "admin-password"
    assert path.stat().st_mode & 0o777 == 0o600
    assert server.data.stat().st_mode & 0o777 == 0o700
    password = server.password
    server.restart()
    assert server.password == password
    server.login()
    written = capfd.readouterr()
    assert password not in written.out + written.err  # stdout is no terminal here


def test_the_password_is_shown_when_asked(new_server: Callable[..., Server], capfd: Any) -> None:
    server = new_server(show_password=True)
    assert capfd.readouterr().out.count(server.password) == 1


async def stop_clock(server: Server) -> None:
    server.parts.throttle._clock = lambda: 0.0


def test_wrong_passwords_are_slowed_down_and_right_ones_are_not(
    new_server: Callable[..., Server],
) -> None:
    server = new_server()
    server.run(stop_clock(server))
    for _ in range(PAIR.burst):
        server.login()
    wrong = {"username": "admin", "password": "x"}
    for _ in range(PAIR.burst):
        assert server.call("POST", "/api/v1/login", wrong, token=None).status == 401
    answer = server.call("POST", "/api/v1/login", wrong, token=None)
    assert (answer.status, answer.code) == (429, "too-many-logins")
    assert 1 <= int(answer.headers["retry-after"]) <= PAIR.seconds + 1


@pytest.mark.limit("login_tries_per_account_and_address")
def test_throttle_pair_at_the_limit_and_one_above() -> None:
    now = [0.0]
    throttle = LoginThrottle(lambda: now[0])
    for _ in range(PAIR.burst):
        throttle.take("ann", "10.0.0.1")
    with pytest.raises(TooManyLogins) as refused:
        throttle.take("ann", "10.0.0.1")
    assert refused.value.retry_after == pytest.approx(PAIR.seconds)
    throttle.take("ann", "10.0.0.2")
    throttle.take("bob", "10.0.0.1")
    now[0] += PAIR.seconds
    throttle.take("ann", "10.0.0.1")
    with pytest.raises(TooManyLogins):
        throttle.take("ann", "10.0.0.1")


@pytest.mark.limit("login_tries_per_account")
def test_throttle_account_over_many_addresses() -> None:
    throttle = LoginThrottle(lambda: 0.0)
    for number in range(ACCOUNT.burst):
        throttle.take("ann", f"10.0.1.{number}")
    with pytest.raises(TooManyLogins):
        throttle.take("ann", "10.0.2.1")


@pytest.mark.limit("login_tries_per_address")
def test_throttle_address_over_many_accounts() -> None:
    throttle = LoginThrottle(lambda: 0.0)
    for number in range(ADDRESS.burst):
        throttle.take(f"user{number}", "10.0.0.1")
    with pytest.raises(TooManyLogins):
        throttle.take("another", "10.0.0.1")


def test_throttle_memory_is_bounded() -> None:
    throttle = LoginThrottle(lambda: 0.0)
    for number in range(BUCKETS):
        throttle.take(f"user{number}", f"address{number}")
    assert len(throttle._buckets) == BUCKETS


def test_a_login_from_a_foreign_page_is_refused(server: Server) -> None:
    answer = server.call(
        "POST",
        "/api/v1/login",
        {"username": "admin", "password": server.password},
        headers={"Origin": "http://evil.example"},
        token=None,
    )
    assert (answer.status, answer.code) == (403, "bad-origin")


def test_passwords_that_are_strange_are_only_wrong(server: Server) -> None:
    for password in ("\0", "é" * 100, "x" * 1024, "🙂"):
        answer = server.call(
            "POST", "/api/v1/login", {"username": f"u{time.time_ns()}", "password": password},
            token=None,
        )  # fmt: skip
        assert answer.status == 401


@pytest.mark.limit("sessions_per_user")
def test_one_login_too_many_ends_the_oldest(new_server: Callable[..., Server]) -> None:
    server = new_server()
    user = server.read(lambda c: people.account(c, "admin")).id
    digests = [people.digest(str(number)) for number in range(limits.SESSIONS_PER_USER + 1)]

    def stored() -> int:
        return len(server.read(lambda c: c.execute(tables.sessions.select()).all()))

    for number, digest in enumerate(digests, 1):
        server.write(
            lambda tx, digest=digest: people.start_session(tx, user, secret=digest, ids=app.new_id)
        )
        assert stored() == min(number, limits.SESSIONS_PER_USER)
    left = server.read(lambda c: {row.hash for row in c.execute(tables.sessions.select())})
    assert left == set(digests[1:])
