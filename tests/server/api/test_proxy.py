"""Behind a proxy: its word on the client counts, and nobody else's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetwire.server.api.proxy import BehindProxy, client_of, networks

TRUSTED = networks(["10.0.0.0/24", "192.168.1.1", "fd00::/64"])
ADDRESSES = st.ip_addresses().map(str)


@pytest.mark.parametrize(
    ("peer", "said", "client"),
    [
        ("203.0.113.9", "1.2.3.4", "203.0.113.9"),  # no proxy of ours: its word counts nothing
        ("10.0.0.5", "", "10.0.0.5"),
        ("10.0.0.5", "1.2.3.4", "1.2.3.4"),
        ("10.0.0.5", "6.6.6.6, 1.2.3.4", "1.2.3.4"),  # the client wrote the first itself
        ("10.0.0.5", "1.2.3.4, 192.168.1.1", "1.2.3.4"),  # two proxies
        ("10.0.0.5", "1.2.3.4, nonsense, 192.168.1.1", "192.168.1.1"),
        ("10.0.0.5", "1.2.3.4:5678", "1.2.3.4"),
        ("10.0.0.5", "[2001:db8::1]:443", "2001:db8::1"),
        ("::ffff:10.0.0.5", "1.2.3.4", "1.2.3.4"),
        ("fd00::7", "::ffff:1.2.3.4", "1.2.3.4"),
        ("10.0.1.5", "1.2.3.4", "10.0.1.5"),  # one above the block
        ("unix", "1.2.3.4", "unix"),
    ],
)
def test_the_client_is_the_first_that_is_no_proxy(peer: str, said: str, client: str) -> None:
    assert client_of(peer, said, TRUSTED) == client


@given(ADDRESSES, st.text(max_size=300), ADDRESSES.filter(lambda one: not one.startswith("fd")))
def test_what_the_client_writes_never_matters(peer: str, forged: str, client: str) -> None:
    trusted = networks(["10.0.0.0/24"])
    if not peer.startswith("10.0.0."):
        assert client_of(peer, forged, trusted) == peer
    if not client.startswith("10.0.0.") and "ffff:" not in client:
        assert client_of("10.0.0.1", f"{forged}, {client}", trusted) == client


def served(scope: dict[str, Any]) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """Return what the application got, None where it was not asked, and what was answered."""
    seen: list[dict[str, Any]] = []
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        del receive, send
        seen.append(scope)

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(BehindProxy(app, TRUSTED)(scope, receive, send))
    return (seen[0] if seen else None), sent


def scope_of(peer: str, kind: str = "http", scheme: str = "", **headers: str) -> dict[str, Any]:
    return {
        "type": kind,
        "scheme": scheme or {"http": "http", "websocket": "ws"}[kind],
        "client": (peer, 5000),
        "path": "/",
        "method": "GET",
        "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()],
    }


@pytest.mark.parametrize(("kind", "scheme"), [("http", "https"), ("websocket", "wss")])
def test_a_proxy_puts_client_and_scheme_right(kind: str, scheme: str) -> None:
    got, _ = served(
        scope_of("10.0.0.5", kind, x_forwarded_for="1.2.3.4", x_forwarded_proto="https")
    )
    assert got is not None
    assert (got["client"], got["scheme"]) == (("1.2.3.4", 0), scheme)


@pytest.mark.parametrize("said", ["", "http", "https, http", "HTTPSX"])
def test_a_proxy_that_took_plain_http_is_refused(said: str) -> None:
    got, sent = served(scope_of("10.0.0.5", x_forwarded_for="1.2.3.4", x_forwarded_proto=said))
    assert got is None
    assert sent[0]["status"] == 403


def test_who_comes_past_the_proxy_is_refused() -> None:
    forged = {"x_forwarded_for": "10.0.0.5", "x_forwarded_proto": "https"}
    got, sent = served(scope_of("203.0.113.9", **forged))
    assert (got, sent[0]["status"]) == (None, 403)
    got, sent = served(scope_of("203.0.113.9", "websocket", **forged))
    assert (got, sent[0]["code"]) == (None, 4403)


def test_who_comes_past_it_by_tls_or_from_this_machine_is_as_it_is() -> None:
    forged = {"x_forwarded_for": "6.6.6.6", "x_forwarded_proto": "https"}
    for peer, scheme in (("203.0.113.9", "https"), ("127.0.0.1", "http")):
        got, _ = served(scope_of(peer, scheme=scheme, **forged))
        assert got is not None
        assert (got["client"], got["scheme"]) == ((peer, 5000), scheme)
