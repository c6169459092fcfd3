"""Behind a proxy: who it says the client is, believed of the proxies alone.

A server that is told so (`--behind-proxy`) speaks plain HTTP with these addresses, which do the
TLS. What others say of themselves in the same headers counts for nothing, and others do not get
in without TLS at all: they would send their secrets in the clear.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from fleetwire.core.access import Forbidden
from fleetwire.server.api.errors import problem_of

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
HOPS: Final = 32
"""More addresses than this in a header are not looked at."""


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Return addresses and CIDR blocks as networks. Raises ValueError."""
    return tuple(ipaddress.ip_network(text) for text in texts)


def client_of(peer: str, forwarded_for: str, trusted: Sequence[Network]) -> str:
    """Return the address of the client: from the right of X-Forwarded-For, each proxy vouches for
    the one before it, and the first that is no proxy is the client. What cannot be read ends the
    walk: further left stands only what the client may have written itself.
    """
    found = peer
    for hop in reversed(forwarded_for.split(",")[-HOPS:]):
        if not is_among(found, trusted):
            return found
        address = _address(hop.strip())
        if address is None:
            return found
        found = str(address)
    return found


def is_among(address: str, trusted: Sequence[Network]) -> bool:
    """Say whether an address is in one of the networks; an IPv4 address in IPv6 clothes too."""
    found = _address(address)
    return found is not None and any(
        found.version == network.version and found in network for network in trusted
    )


class BehindProxy:
    """ASGI application around the whole: puts client and scheme right, or refuses."""

    def __init__(self, app: ASGIApp, trusted: Sequence[Network]) -> None:
        self._app = app
        self._trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or socket (ASGI)."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        peer = scope["client"][0] if scope.get("client") else ""
        if is_among(peer, self._trusted):
            headers = Headers(scope=scope)
            said = ",".join(headers.getlist("x-forwarded-for"))
            scheme = headers.get("x-forwarded-proto", "").rpartition(",")[2].strip().lower()
            if scheme not in {"https", "wss"}:
                why = "The proxy does not say that the client came by TLS."
                hint = "It has to set X-Forwarded-Proto to https, and to refuse or redirect http."
                await _refuse(scope, receive, send, why, hint)
                return
            scope["client"] = (client_of(peer, said, self._trusted), 0)
            scope["scheme"] = "wss" if scope["type"] == "websocket" else "https"
        elif scope["scheme"] in {"http", "ws"} and not _is_loopback(peer):
            why = "Without TLS this server is reached through its proxy only."
            hint = "Use the proxy's address, or name yours with --behind-proxy."
            await _refuse(scope, receive, send, why, hint)
            return
        await self._app(scope, receive, send)


async def _refuse(scope: Scope, receive: Receive, send: Send, why: str, hint: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 4403, "reason": "not this way"})
        return
    await problem_of(Forbidden(why, hint=hint))(scope, receive, send)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:  # IPv4 with a port
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found


def _is_loopback(text: str) -> bool:
    found = _address(text)
    return found is not None and found.is_loopback
