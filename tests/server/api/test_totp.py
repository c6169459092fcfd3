"""One's own account by login: password, logins and the second factor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fleetwire.core import limits, totp
from fleetwire.server.api.errors import TooManyLogins
from fleetwire.server.api.throttle import CODE, LoginThrottle
from fleetwire.server.store import tables

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.server.api.conftest import Answer, Server


class Person:
    """Somebody at a browser."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.page = server.login()

    def __call__(self, method: str, path: str, body: Any = None) -> Answer:
        return self.server.call(method, f"/api/v1/{path}", body, headers=self.page, token=None)

    def login(self, **more: str) -> Answer:
        body = {"username": "admin", "password": self.server.password, **more}
        return self.server.call("POST", "/api/v1/login", body, token=None)


def begin(person: Person) -> bytes:
    answer = person("POST", "me/totp", {"password": person.server.password})
    assert answer.status == 200, answer
    assert answer.json["uri"].startswith("otpauth://totp/Fleetwire%3Aadmin?secret=")
    assert answer.json["secret"] in answer.json["uri"]
    return totp.from_text(answer.json["secret"])


def test_a_second_factor_from_beginning_to_end(
    new_server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(totp, "step_of", lambda _: 1_000_000)  # the test may take longer than one
    server = new_server()
    person = Person(server)
    now = server.parts.clock()
    codes = [totp.code_at(begin(person), 0)]  # of a secret that is replaced: it is worth nothing
    secret = begin(person)
    codes = [totp.code_at(secret, totp.step_of(now) + off) for off in (-1, 0, 1)]
    assert person.login().status == 200  # begun is not confirmed
    assert person("POST", "me/totp/confirm", {"code": "000000"}).code == "bad-code"
    confirmed = person("POST", "me/totp/confirm", {"code": codes[0]})
    recovery = confirmed.json["recovery_codes"]
    assert len(set(recovery)) == 10
    assert person("GET", "me/totp").json == {"on": True, "recovery_codes": 10}
    assert person("POST", "me/totp", {"password": server.password}).code == "no-second-factor"
    # the password alone is not enough, a code not without the password, and none is good twice
    assert person.login().code == "code-needed"
    wrong = {"username": "admin", "password": "wrong", "code": codes[1]}
    assert server.call("POST", "/api/v1/login", wrong, token=None).code == "bad-credentials"
    assert person.login(code=codes[0]).code == "bad-code"
    assert person.login(code=codes[1]).status == 200
    assert person.login(code=codes[1]).code == "bad-code"
    assert person.login(code=codes[0]).code == "bad-code"  # nor one that is older than that
    assert person.login(code=recovery[3].upper().replace("-", " ")).status == 200
    assert person.login(code=recovery[3]).code == "bad-code"
    assert person("GET", "me/totp").json == {"on": True, "recovery_codes": 9}
    stored = str(server.read(lambda c: c.execute(tables.recovery_codes.select()).all()))
    assert not any(code in stored for code in recovery)
    # an end takes a code
    server.parts.throttle._buckets.clear()
    assert person("POST", "me/totp/end", {"code": codes[1]}).code == "bad-code"
    assert person("POST", "me/totp/end", {"code": recovery[0]}).status == 204
    assert person.login().status == 200
    assert person("POST", "me/totp/end", {"code": recovery[1]}).code == "bad-code"


def test_a_system_admin_ends_a_lost_one(new_server: Callable[..., Server]) -> None:
    server = new_server()
    person = Person(server)
    secret = begin(person)
    code = totp.code_at(secret, totp.step_of(server.parts.clock()))
    assert person("POST", "me/totp/confirm", {"code": code}).status == 200
    assert server.call("GET", "/api/v1/users/admin").json["totp"]
    assert server.call("DELETE", "/api/v1/users/admin/totp").status == 204
    assert person("GET", "me/totp").status == 401
    assert person.login().status == 200


def test_only_the_password_begins_one(server: Server) -> None:
    person = Person(server)
    assert person("POST", "me/totp", {"password": "wrong"}).code == "bad-credentials"
    assert person("POST", "me/totp/confirm", {"code": "123456"}).code == "no-second-factor"


def test_no_token_touches_its_owners_account(server: Server) -> None:
    for method, path in (
        ("GET", "me/sessions"), ("DELETE", "me/sessions/x"), ("GET", "me/totp"),
        ("POST", "me/password"), ("POST", "me/totp"), ("POST", "me/totp/end"),
    ):  # fmt: skip
        answer = server.call(method, f"/api/v1/{path}", b"{}" if method == "POST" else None)
        assert answer.code == "forbidden"


def test_a_new_password_ends_the_other_logins(new_server: Callable[..., Server]) -> None:
    server = new_server()
    person, other = Person(server), Person(server)
    new = {"old": server.password, "new": "quite another one"}
    assert person("POST", "me/password", new | {"old": "wrong"}).code == "bad-credentials"
    assert person("POST", "me/password", new | {"new": "short"}).status == 422
    assert person("POST", "me/password", new).status == 204
    assert person("GET", "me").status == 200
    assert other("GET", "me").status == 401
    assert person.login().code == "bad-credentials"
    assert person.login(password="quite another one").status == 200


def test_ones_own_logins(new_server: Callable[..., Server]) -> None:
    server = new_server()
    person, other = Person(server), Person(server)
    listed = person("GET", "me/sessions").json["items"]
    assert [one["current"] for one in listed] == [False, True]
    assert listed[0]["address"] == "127.0.0.1"
    assert person("DELETE", f"me/sessions/{listed[0]['id']}").status == 204
    assert other("GET", "me").status == 401
    assert person("DELETE", f"me/sessions/{listed[0]['id']}").status == 404
    assert person("GET", "me").status == 200


@pytest.mark.limit("code_tries_per_account")
def test_throttle_codes_at_the_limit_and_one_above() -> None:
    now = [0.0]
    throttle = LoginThrottle(lambda: now[0])
    assert CODE.burst == limits.CODE_TRIES_PER_ACCOUNT
    for _ in range(CODE.burst):
        throttle.take_code("ann")
    with pytest.raises(TooManyLogins) as refused:
        throttle.take_code("ann")
    assert refused.value.retry_after == pytest.approx(CODE.seconds)
    throttle.take_code("bob")
    now[0] += CODE.seconds
    throttle.take_code("ann")
    throttle.give_code_back("ann")
    throttle.take_code("ann")
    with pytest.raises(TooManyLogins):
        throttle.take_code("ann")
