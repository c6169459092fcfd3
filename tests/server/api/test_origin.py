"""Where a call may come from: hosts, origins, and the headers that tell a browser."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from starlette.routing import WebSocketRoute
from structlog.testing import capture_logs

from fleetwire.server import reach
from fleetwire.server.api.auth import same_origin
from fleetwire.server.api.front import SECURITY_HEADERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.server.api.conftest import Server

FOREIGN = [
    "null",
    "http://evil.example",
    "http://127.0.0.1",  # no port: another origin
    "http://127.0.0.1:1",
    "http://{host}.evil.example",  # our name as a prefix
    "http://evil.example/{host}",
    "http://evil{host}",  # as a suffix
    "http://user@{host}",
    "http://{host}/",
    "http://{host} http://evil.example",
    "ftp://{host}",
    "{host}",
    "",
]


@pytest.fixture(scope="module")
def page(server: Server) -> dict[str, str]:
    return server.login()


def test_our_own_page_may_write(server: Server, page: dict[str, str]) -> None:
    answer = server.call("POST", "/api/v1/tokens", {"name": "x"}, headers=page, token=None)
    assert answer.status == 201


@pytest.mark.parametrize("origin", FOREIGN)
def test_a_write_by_cookie_from_elsewhere_is_refused(
    server: Server, page: dict[str, str], origin: str
) -> None:
    headers = page | {"Origin": origin.format(host=server.host)}
    for method, path in (("POST", "/api/v1/tokens"), ("DELETE", "/api/v1/login")):
        answer = server.call(method, path, {"name": "x"}, headers=headers, token=None)
        assert (answer.status, answer.code) == (403, "bad-origin")


def test_a_write_by_cookie_without_origin_is_refused(server: Server, page: dict[str, str]) -> None:
    answer = server.call(
        "POST", "/api/v1/tokens", {"name": "x"}, headers={"Cookie": page["Cookie"]}, token=None
    )
    assert (answer.status, answer.code) == (403, "bad-origin")


def test_a_read_by_cookie_needs_no_origin_but_no_foreign_one(
    server: Server, page: dict[str, str]
) -> None:
    cookie = {"Cookie": page["Cookie"]}
    assert server.call("GET", "/api/v1/me", headers=cookie, token=None).status == 200
    for path in ("/api/v1/me", "/api/v1/runs/0190b7f0/events"):
        foreign = cookie | {"Origin": "http://evil.example"}
        assert server.call("GET", path, headers=foreign, token=None).code == "bad-origin"
        cross = cookie | {"Sec-Fetch-Site": "cross-site"}
        assert server.call("GET", path, headers=cross, token=None).code == "bad-origin"
    same = cookie | {"Sec-Fetch-Site": "same-origin"}
    assert server.call("GET", "/api/v1/me", headers=same, token=None).status == 200


def test_a_token_needs_no_origin(server: Server) -> None:
    for headers in ({}, {"Origin": "http://evil.example"}):
        answer = server.call("POST", "/api/v1/tokens", {"name": "x"}, headers=headers)
        assert answer.status == 201


def test_a_token_wins_over_a_cookie(server: Server, page: dict[str, str]) -> None:
    headers = {"Cookie": page["Cookie"]}
    assert server.call("GET", "/api/v1/me", headers=headers).json["via"] == "token"


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("http://localhost:8080", "localhost:8080", True),
        ("https://fleet.example", "fleet.example", True),
        ("HTTP://LocalHost:8080", "localhost:8080", True),
        ("http://localhost", "localhost:8080", False),
        ("null", "null", False),
        ("http://", "", False),
    ],
)
def test_same_origin(origin: str, host: str, same: bool) -> None:
    assert same_origin(origin, host) is same


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "evil.example:80",
        "127.0.0.1.nip.io",
        "[::2]",
        "",
        "localhost@evil",
    ],
)
def test_another_host_name_is_refused(server: Server, host: str) -> None:
    for path in ("/api/v1/me", "/", "/healthz"):
        answer = server.call("GET", path, headers={"Host": host})
        assert (answer.status, answer.code) == (400, "bad-host")


def test_two_host_headers_are_refused(server: Server) -> None:
    answer = server.raw(
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\nConnection: close\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8080", "[::1]:8080"])
def test_names_of_loopback_are_answered(server: Server, host: str) -> None:
    assert server.call("GET", "/healthz", headers={"Host": host}).status == 200


def test_configured_names_are_answered(new_server: Callable[..., Server]) -> None:
    server = new_server(names=("Fleet.example",))
    assert server.call("GET", "/healthz", headers={"Host": "fleet.example:443"}).status == 200
    assert server.call("GET", "/healthz", headers={"Host": "other.example"}).status == 400


def test_an_address_that_the_machine_gets_is_answered_and_one_that_it_loses_is_not(
    new_server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the running process: by then its certificate has the new address, too, and an agent that
    dials it signs for it.
    """
    monkeypatch.setattr(reach, "LOOK_S", 0.05)
    addresses: set[str] | OSError = {"192.0.2.1"}

    def read() -> set[str]:
        if isinstance(addresses, OSError):
            raise addresses
        return addresses

    monkeypatch.setattr(reach, "_addresses", read)
    server = new_server(host="0.0.0.0", behind_proxy=("127.0.0.1",))

    def status(host: str) -> int:
        return server.call(
            "GET", "/healthz", headers={"Host": host, "X-Forwarded-Proto": "https"}
        ).status

    assert [status("192.0.2.1"), status("[2001:db8::7]:443")] == [200, 400]
    addresses = {"2001:db8::7"}
    server.wait(lambda: status("[2001:db8::7]:443") == 200)
    assert status("192.0.2.1") == 400
    assert "[2001:db8::7]" in (server.process._gateway._names() or ())
    with capture_logs() as told:
        addresses = OSError("no cards")
        server.wait(lambda: len(told) > 1)
        assert status("[2001:db8::7]") == 200
    addresses = {"192.0.2.1"}
    server.wait(lambda: status("192.0.2.1") == 200)


@pytest.mark.parametrize("path", ["/", "/api/v1/me", "/healthz", "/docs", "/openapi.json", "/nope"])
def test_security_headers_are_on_every_answer(server: Server, path: str) -> None:
    for token in ("", None):
        answer = server.call("GET", path, token=token)
        for name, value in SECURITY_HEADERS.items():
            (given,) = answer.headers.get_all(name)
            if name == "content-security-policy":
                assert "unsafe" not in given
                given = re.sub(r"style-src 'self' 'nonce-[\w-]{22}'; ", "", given)
            assert given == value, name
        # No CORS: nothing allows another site's page to read an answer.
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
        assert "server" not in answer.headers
        if path.startswith("/api"):
            assert answer.headers["cache-control"] == "no-store"


def test_no_socket_opens_for_a_page_of_whatever_origin(
    server: Server, page: dict[str, str]
) -> None:
    """The only socket is the agents', and no agent has an origin: our own pages have no use for it
    either.
    """
    routes = server.process._gateway.routes
    assert [one.path for one in routes if isinstance(one, WebSocketRoute)] == ["/ws/agent/{node}"]
    for origin in (*FOREIGN, "http://{host}"):
        request = (
            "GET /ws/agent/0190b7f0-1c2d-7abc-8def-0123456789ab HTTP/1.1\r\n"
            f"Host: {server.host}\r\n"
            f"Origin: {origin.format(host=server.host)}\r\nCookie: {page['Cookie']}\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: fleetwire.1\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert server.raw(request.encode()).startswith(b"HTTP/1.1 403 "), origin
