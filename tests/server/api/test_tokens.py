from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fleetwire.server.api.auth import CACHE_S, Authenticator
from fleetwire.server.domain import people
from fleetwire.server.store import tables

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.server.api.conftest import Server


def test_create_use_list_delete(server: Server) -> None:
    made = server.call("POST", "/api/v1/tokens", {"name": "ci", "expires_in": 3600})
    assert made.status == 201
    assert made.headers["cache-control"] == "no-store"
    token = made.json
    assert token["token"].startswith("fw_")
    assert len(token["token"]) >= 3 + 43
    assert server.call("GET", "/api/v1/me", token=token["token"]).status == 200
    listed = server.call("GET", "/api/v1/tokens").json["items"]
    assert listed[0] == {key: value for key, value in token.items() if key != "token"}
    assert server.call("DELETE", f"/api/v1/tokens/{token['id']}").status == 204
    # at once, although the token was in use a moment ago
    assert server.call("GET", "/api/v1/me", token=token["token"]).status == 401
    again = server.call("DELETE", f"/api/v1/tokens/{token['id']}")
    assert (again.status, again.code) == (404, "not-found")


def test_the_secret_is_stored_as_a_hash_only(server: Server) -> None:
    secret = server.call("POST", "/api/v1/tokens", {"name": "hashed"}).json["token"]
    rows = server.read(lambda c: c.execute(tables.tokens.select()).mappings().all())
    assert people.digest(secret) in {row["hash"] for row in rows}
    assert all(secret not in str(dict(row)) for row in rows)


def test_an_expired_token_is_refused_also_while_it_is_cached(
    new_server: Callable[..., Server],
) -> None:
    server = new_server()
    token = server.new_token(expires_in=3600)
    assert server.call("GET", "/api/v1/me", token=token).status == 200
    server.process.auth._clock = lambda: server.process.auth_time  # type: ignore[attr-defined]
    server.process.auth_time = 1 << 60  # type: ignore[attr-defined]
    assert server.call("GET", "/api/v1/me", token=token).status == 401


def test_a_token_deleted_by_another_process_is_refused_soon(
    new_server: Callable[..., Server],
) -> None:
    server = new_server()
    now = [0.0]
    server.process.auth._monotonic = lambda: now[0]
    token = server.new_token(name="other")
    assert server.call("GET", "/api/v1/me", token=token).status == 200
    server.write(
        lambda tx: tx.connection.execute(
            tables.tokens.delete().where(tables.tokens.c.name == "other")
        )
    )
    now[0] = CACHE_S
    assert server.call("GET", "/api/v1/me", token=token).status == 401


def test_an_end_during_a_look_is_not_forgotten(new_server: Callable[..., Server]) -> None:
    server = new_server()
    token = server.new_token(name="racing")
    auth = server.process.auth
    found = server.run(auth._known_or_read(token, is_token=True))
    assert found is not None
    auth._known.clear()

    async def look() -> None:
        read = server.process.database.read

        async def slow(query: Callable[..., object]) -> object:
            result = await read(query)
            auth.forget(found.credential)  # the DELETE was answered while we were reading
            return result

        server.process.database.read = slow  # type: ignore[method-assign,assignment]
        try:
            await auth._known_or_read(token, is_token=True)
        finally:
            server.process.database.read = read  # type: ignore[method-assign]

    server.run(look())
    assert people.digest(token) not in auth._known


def test_last_used_is_noted_at_most_once_a_minute(new_server: Callable[..., Server]) -> None:
    server = new_server()
    auth: Authenticator = server.process.auth
    now = [10**15]
    auth._clock = lambda: now[0]
    for _ in range(3):
        assert server.call("GET", "/api/v1/me").status == 200
    used = auth.take_used()
    assert list(used.values()) == [now[0]]
    now[0] += 59_999_999
    server.call("GET", "/api/v1/me")
    assert auth.take_used() == {}
    now[0] += 1
    server.call("GET", "/api/v1/me")
    due = auth.take_used()
    assert list(due.values()) == [now[0]]
    assert auth._written == due
    server.write(lambda tx: people.note_used(tx, due))
    rows = server.read(lambda c: c.execute(tables.tokens.select()).mappings().all())
    assert [row["last_used_at"] for row in rows] == [now[0]]
    now[0] += 60_000_000
    auth.take_used()
    assert not auth._written  # who has not come for long is nothing to remember


def test_pages(new_server: Callable[..., Server]) -> None:
    server = new_server()
    for number in range(5):
        server.call("POST", "/api/v1/tokens", {"name": f"token {number}"})
    names = []
    path = "/api/v1/tokens?limit=2"
    pages = 0
    while path:
        page = server.call("GET", path).json
        names += [one["name"] for one in page["items"]]
        cursor = page["next_cursor"]
        path = f"/api/v1/tokens?limit=2&cursor={cursor}" if cursor else ""
        pages += 1
    assert names == ["token 4", "token 3", "token 2", "token 1", "token 0", "test"]
    assert pages == 3


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 129}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "x", "expires_in": 0}, "expires_in"),
        ({"name": "x", "expires_in": -1}, "expires_in"),
        ({"name": "x", "expires_in": people.TOKEN_LONGEST_S + 1}, "expires_in"),
        ({"name": "x", "expires_in": True}, "expires_in"),
        ({"name": "x", "expires": 5}, "expires"),
        ({}, "name"),
    ],
)
def test_bad_tokens(server: Server, body: object, field: str) -> None:
    answer = server.call("POST", "/api/v1/tokens", body)
    assert answer.status == 422
    assert answer.code
    assert answer.json["field"] == field


@pytest.mark.limit("tokens_per_user")
def test_tokens_per_user_at_the_limit_and_one_above(
    new_server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = new_server()
    monkeypatch.setattr(people, "TOKENS_PER_USER", 3)
    assert server.call("POST", "/api/v1/tokens", {"name": "2"}).status == 201
    assert server.call("POST", "/api/v1/tokens", {"name": "3"}).status == 201
    assert server.call("POST", "/api/v1/tokens", {"name": "4"}).code == "limit-exceeded"


def test_what_an_enrolment_token_is_bound_to(server: Server) -> None:
    path = "/api/v1/enrolment-tokens"
    to = {"name": "web-*", "network": "10.1.0.0/16", "approval": True}
    made = server.call("POST", path, to)
    assert made.status == 201
    assert {key: made.json[key] for key in to} == to
    for wrong, field in (({"name": "a b"}, "name"), ({"network": "10.0.0.1/8"}, "network")):
        refused = server.call("POST", path, wrong)
        assert (refused.status, refused.json["field"]) == (422, field)
    page = server.call("GET", "/api/v1/enrolment-uses")
    assert (page.status, page.json["items"]) == (200, [])


def test_enrolment_tokens(server: Server) -> None:
    made = server.call(
        "POST", "/api/v1/enrolment-tokens", {"labels": {"role": "web"}, "expires_in": 60}
    )
    assert made.status == 201
    token = made.json
    assert token["labels"] == {"role": "web"}
    listed = server.call("GET", "/api/v1/enrolment-tokens").json["items"]
    once = {"token", "command", "ca_fingerprint"}
    assert listed[0] == {key: value for key, value in token.items() if key not in once}
    assert token["command"] == (
        f"(umask 077; printf '%s\\n' {token['token']} > enrolment-token) && "
        f"fleetwire agent --server {server.origin} --token-file enrolment-token"
    )
    assert (token["ca_fingerprint"], token["approval"]) == (None, False)
    assert server.call("DELETE", f"/api/v1/enrolment-tokens/{token['id']}").status == 204
    assert server.call("DELETE", f"/api/v1/enrolment-tokens/{token['id']}").status == 404
