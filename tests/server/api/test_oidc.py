"""Login at an OpenID provider: a real one, small, in a process of its own."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from tests.server.api import oidc_provider

from fleetwire.server.api import oidc
from fleetwire.server.config import BadConfig, Config
from fleetwire.server.domain import identities
from fleetwire.server.store import people, tables

if TYPE_CHECKING:
    from tests.server.api.conftest import Answer, Server

    from fleetwire.server.domain.people import Account
    from fleetwire.server.store.engine import Tx

PROVIDER = Path(__file__).with_name("oidc_provider.py")
BACK = "/api/v1/login/oidc/callback"


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    with subprocess.Popen(
        [sys.executable, str(PROVIDER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate()


@pytest.fixture
def ours(new_server: Callable[..., Server], issuer: str, tmp_path: Path) -> Server:
    return begin_server(new_server, issuer, tmp_path)


def begin_server(
    new_server: Callable[..., Server], issuer: str, tmp_path: Path, **more: object
) -> Server:
    secret = tmp_path / "client-secret"
    secret.write_text(f"{oidc_provider.SECRET}\n")
    return new_server(
        oidc_issuer=issuer, oidc_client_id=oidc_provider.CLIENT, oidc_client_secret_file=secret,
        oidc_name="Example", **more,
    )  # fmt: skip


def begin(server: Server) -> tuple[str, str]:
    """Begin a login; return where the browser is sent, and its cookie."""
    answer = server.call("GET", "/api/v1/login/oidc", token=None)
    assert answer.status == 303, answer
    flags = str(answer.headers["set-cookie"]).lower()
    assert "httponly" in flags
    assert "samesite=lax" in flags
    return str(answer.headers["location"]), flags_free(answer)


def flags_free(answer: Answer) -> str:
    return str(answer.headers["set-cookie"]).partition(";")[0]


def at_provider(location: str, hint: str) -> str:
    """Be the browser at the provider; return the path and query that it is sent back to."""
    parts = urlsplit(location)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    connection.request("GET", f"{parts.path}?{parts.query}&login_hint={quote(hint)}")
    back = urlsplit(connection.getresponse().headers["location"])
    connection.close()
    assert back.path == BACK
    return f"{back.path}?{back.query}"


def come_back(server: Server, path: str, cookie: str) -> Answer:
    return server.call("GET", path, headers={"Cookie": cookie}, token=None)


def login(server: Server, hint: str) -> Answer:
    location, cookie = begin(server)
    return come_back(server, at_provider(location, hint), cookie)


def problem(answer: Answer) -> str:
    assert answer.status == 303, answer
    assert "fleetwire_session" not in str(answer.headers)
    return str(answer.headers["location"]).partition("problem=")[2]


def session(answer: Answer) -> dict[str, str]:
    assert (answer.status, answer.headers["location"]) == (303, "/"), answer
    cookies = [one.partition(";") for one in answer.headers.get_all("set-cookie", [])]
    (mine,) = [(one, rest) for one, _, rest in cookies if one.startswith("fleetwire_session=")]
    assert "samesite=strict" in mine[1].lower()
    return {"Cookie": mine[0]}


@pytest.mark.slow
def test_one_logs_in_and_may_nothing_yet(ours: Server) -> None:
    assert ours.call("GET", "/api/v1/login", token=None).json == {"oidc": "Example"}
    page = session(login(ours, "right ann"))
    me = ours.call("GET", "/api/v1/me", headers=page, token=None).json
    assert (me["name"], me["role"], me["projects"]) == ("ann", "user", [])
    assert ours.call("GET", "/api/v1/nodes", headers=page, token=None).code == "forbidden"
    again = session(login(ours, "right ann"))
    assert ours.call("GET", "/api/v1/me", headers=again, token=None).json["id"] == me["id"]
    # there is no password to try, and who is disabled is out here as well
    wrong = {"username": "ann", "password": "x"}
    assert ours.call("POST", "/api/v1/login", wrong, token=None).code == "bad-credentials"
    assert ours.call("PATCH", "/api/v1/users/ann", {"disabled": True}).status == 200
    assert ours.call("GET", "/api/v1/me", headers=page, token=None).status == 401
    assert problem(login(ours, "right ann")) == "not-known-here"
    # a name proves nothing: nobody becomes somebody who is there already
    assert problem(login(ours, "right admin")) == "not-known-here"
    assert problem(login(ours, "right ../etc")) == "not-known-here"
    # an admin says who it is
    made = {"name": "bob", "oidc_subject": "subject of admin"}
    assert ours.call("POST", "/api/v1/users", made).status == 201
    page = session(login(ours, "right admin"))
    assert ours.call("GET", "/api/v1/me", headers=page, token=None).json["name"] == "bob"
    taken = ours.call("POST", "/api/v1/users", made | {"name": "eve"})
    assert (taken.code, taken.json["field"]) == ("name-taken", "oidc_subject")
    # and each of these stands in the audit, with how it was proved
    told = [
        (entry["actor"]["name"], entry["outcome"])
        for entry in ours.call("GET", "/api/v1/system/audit?limit=500&action=login").json["items"]
        if entry["detail"].get("by") == "OpenID provider"
    ]
    refused = [("", "refused")] * 3
    assert told == [("bob", "done"), *refused, ("ann", "done"), ("ann", "done")]


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrong",
    [
        "issuer", "audience", "audiences", "expired", "nonce", "no-nonce", "no-subject",
        "no-expiry", "key", "hmac", "none",
    ],
)  # fmt: skip
def test_a_wrong_id_token_is_refused(attempt: Callable[[str], oidc.Vouched], wrong: str) -> None:
    assert attempt("right ann").subject == "subject of ann"
    with pytest.raises(oidc.Refused):
        attempt(f"{wrong} ann")


@pytest.mark.slow
@pytest.mark.parametrize("change", ["new-key", "same-name"])
def test_a_provider_changes_its_key_between_two_logins(
    attempt: Callable[[str], oidc.Vouched], change: str
) -> None:
    assert attempt("right ann").subject == "subject of ann"
    assert attempt(f"{change} ann").subject == "subject of ann"


@pytest.fixture
def attempt(server: Server, issuer: str, tmp_path: Path) -> Callable[[str], oidc.Vouched]:
    """Log in as a hint says, always at one server, which has asked the provider before."""
    secret = tmp_path / "client-secret"
    secret.write_text(oidc_provider.SECRET)
    config = Config(
        data=tmp_path, oidc_issuer=issuer, oidc_client_id=oidc_provider.CLIENT,
        oidc_client_secret_file=secret,
    )  # fmt: skip
    settings = oidc.settings_of(config)
    assert settings is not None
    provider = oidc.Provider(
        settings, clock=server.parts.clock, monotonic=server.parts.auth._monotonic
    )

    async def go(hint: str) -> oidc.Vouched:
        location = await provider.begin("s" * 43, f"{server.origin}{BACK}")
        query = parse_qs(urlsplit(at_provider(location, hint)).query)
        return await provider.finish(
            "s" * 43, f"{server.origin}{BACK}", state=query["state"][0], code=query["code"][0]
        )

    return lambda hint: server.run(go(hint))


@pytest.mark.slow
def test_who_is_disabled_on_the_way_back_is_out(
    ours: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter = identities.enter

    def entered_and_disabled(tx: Tx, **who: Any) -> Account:
        account = enter(tx, **who)
        people.change_user(tx.connection, account.id, disabled=True)
        return account

    monkeypatch.setattr(identities, "enter", entered_and_disabled)
    assert problem(login(ours, "right ann")) == "not-known-here"
    assert not ours.read(lambda c: c.execute(tables.sessions.select()).all())


@pytest.mark.slow
def test_what_comes_back_must_be_what_was_begun_here(ours: Server) -> None:
    location, cookie = begin(ours)
    path = at_provider(location, "right ann")
    _, other = begin(ours)
    for foreign in (other, "", "fleetwire_oidc="):
        assert problem(come_back(ours, path, foreign)) == "oidc-refused"
    state = parse_qs(urlsplit(path).query)["state"][0]
    assert problem(come_back(ours, path.replace(state, "x"), cookie)) == "oidc-refused"
    assert problem(come_back(ours, f"{BACK}?error=access_denied&state={state}", cookie))
    session(come_back(ours, path, cookie))
    assert problem(come_back(ours, path, cookie)) == "oidc-refused"  # a code is good once
    # PKCE: a code that was stolen on its way is of no use in another browser
    stolen_location, _ = begin(ours)
    stolen = parse_qs(urlsplit(at_provider(stolen_location, "right ann")).query)["code"][0]
    mine = parse_qs(urlsplit(location).query)["state"][0]
    answer = come_back(ours, f"{BACK}?code={stolen}&state={mine}", cookie)
    assert problem(answer) == "oidc-refused"
    assert len(ours.read(lambda c: c.execute(tables.sessions.select()).all())) == 1


@pytest.mark.slow
def test_strangers_stay_strangers_where_users_are_not_made(
    new_server: Callable[..., Server], issuer: str, tmp_path: Path
) -> None:
    server = begin_server(new_server, issuer, tmp_path, oidc_create_users=False)
    assert problem(login(server, "right ann")) == "not-known-here"
    assert len(server.call("GET", "/api/v1/users").json["items"]) == 1


def test_a_provider_that_is_away_is_told_at_the_sign_in_page(
    new_server: Callable[..., Server], tmp_path: Path
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        server = begin_server(new_server, f"http://127.0.0.1:{nobody.getsockname()[1]}", tmp_path)
        tries = [server.call("GET", "/api/v1/login/oidc", token=None) for _ in range(11)]
    assert [problem(one) for one in tries[:10]] == ["oidc-refused"] * 10
    assert problem(tries[10]) == "too-many-logins"  # nor is it asked without end


def test_without_a_provider_there_is_none(server: Server) -> None:
    assert server.call("GET", "/api/v1/login", token=None).json == {"oidc": None}
    for path in ("/api/v1/login/oidc", BACK):
        assert server.call("GET", path, token=None).status == 404


@pytest.mark.parametrize("issuer", ["http://fleet.example", "ftp://x", "fleet.example"])
def test_secrets_go_to_https_only(tmp_path: Path, issuer: str) -> None:
    (tmp_path / "secret").write_text("x")
    config = Config(
        data=tmp_path, oidc_issuer=issuer, oidc_client_id="x",
        oidc_client_secret_file=tmp_path / "secret",
    )  # fmt: skip
    with pytest.raises(BadConfig, match="https"):
        oidc.settings_of(config)
    with pytest.raises(BadConfig, match="oidc_client_id"):
        oidc.settings_of(Config(data=tmp_path, oidc_issuer="https://x.example"))
