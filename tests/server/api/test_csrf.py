"""Every change by cookie shows the token that goes with it, besides coming from our own page."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from fleetwire.server.api.auth import cookie_name, csrf_of
from fleetwire.server.api.doors import OPEN, Door
from fleetwire.server.api.routes import DOORS

if TYPE_CHECKING:
    from tests.server.api.conftest import Server

CHANGES = [door for door in DOORS if door.method != "GET" and door.permission != OPEN]
NAMES = [f"{door.method} {door.path}" for door in CHANGES]


@pytest.fixture(scope="module")
def page(server: Server) -> dict[str, str]:
    return server.login()


@pytest.mark.parametrize("door", CHANGES, ids=NAMES)
def test_a_change_by_cookie_without_its_token_is_refused(
    server: Server, page: dict[str, str], door: Door
) -> None:
    path = re.sub(r"{[^}]+}", "0190b7f0-1c2d-7abc-8def-0123456789ab", door.path)
    other = csrf_of("the secret of another login")
    bare = {name: page[name] for name in ("Cookie", "Origin")}
    for wrong in ({}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": other}, {"X-CSRF-Token": "é"}):
        answer = server.call(door.method, path, headers=bare | wrong, token=None)
        assert (answer.status, answer.code) == (403, "bad-csrf"), wrong
    no_origin = {name: page[name] for name in ("Cookie", "X-CSRF-Token")}
    assert server.call(door.method, path, headers=no_origin, token=None).code == "bad-origin"


def test_with_its_token_it_passes_and_reads_need_none(server: Server, page: dict[str, str]) -> None:
    answer = server.call("POST", "/api/v1/tokens", {"name": "x"}, headers=page, token=None)
    assert answer.status == 201
    me = server.call("GET", "/api/v1/me", headers={"Cookie": page["Cookie"]}, token=None)
    assert me.json["csrf"] == page["X-CSRF-Token"]
    assert server.call("GET", "/api/v1/me").json["csrf"] is None


def test_the_token_says_nothing_of_the_cookie() -> None:
    secret = "s" * 43
    assert secret not in csrf_of(secret)
    assert csrf_of(secret) != csrf_of(secret + "x")


def test_on_tls_the_cookie_is_this_hosts_own() -> None:
    assert cookie_name("https") == "__Host-fleetwire_session"
    assert cookie_name("http") == "fleetwire_session"
