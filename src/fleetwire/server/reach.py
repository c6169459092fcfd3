"""By which names and addresses this server is reached: its certificate is for these, and requests
for any other host are refused (DNS rebinding, relayed challenges).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Collection, Iterable
from typing import Final

import psutil
import structlog

from fleetwire.server.log import log_failure

LOOK_S: Final = 5.0
"""How often it is looked whether the machine has other addresses now, or another name."""

_log = structlog.get_logger("fleetwire.server")

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def is_loopback(host: str) -> bool:
    """Say whether an address to listen on can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def reached_by(
    host: str, names: Iterable[str], *, machine: str, addresses: Collection[str]
) -> frozenset[str]:
    """Return the names and addresses (without brackets, lower case) of a server that listens on
    `host`. `names` are those that its settings add; `machine` and `addresses` are the machine's
    own, which count only where the server listens on all of them.

    An address, or the machine's own name, never lets a foreign page in: only names that others
    may point here could, and of these only what the settings name is answered to.
    """
    found = set(LOOPBACK) | {name.strip("[]").lower() for name in names}
    host = host.strip("[]").lower()
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - it is compared, not bound
        found |= {one.lower() for one in addresses}
        if machine:
            found.add(machine.lower())
    else:
        found.add(host)
    return frozenset(found)


def in_urls(names: Iterable[str]) -> frozenset[str]:
    """Return names as the Host header has them: IPv6 addresses in brackets."""
    return frozenset(f"[{name}]" if ":" in name else name for name in names)


def of_this_machine(host: str, names: Iterable[str]) -> frozenset[str]:
    """Return `reached_by` for this machine as it is now."""
    return reached_by(host, names, machine=socket.gethostname(), addresses=_addresses())


class Reached:
    """By what a server is reached now. A machine gets addresses while the server runs: its
    certificate, its front door and its links have to know the same ones, so all of them ask here.
    """

    def __init__(self, host: str, names: Iterable[str]) -> None:
        self._host = host
        self._names = tuple(names)
        self._hosts: frozenset[str] = frozenset()
        self.look()

    def look(self) -> frozenset[str]:
        """Return `of_this_machine`, and keep it. Raises OSError."""
        found = of_this_machine(self._host, self._names)
        hosts = in_urls(found)
        if self._hosts and hosts != self._hosts:
            new, gone = sorted(hosts - self._hosts), sorted(self._hosts - hosts)
            _log.info("reached by other names", new=new, gone=gone)
        self._hosts = hosts
        return found

    def hosts(self) -> frozenset[str]:
        """Return what was found last, as URLs have it: it costs nothing."""
        return self._hosts

    async def run(self) -> None:
        """Look every `LOOK_S` seconds until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                self.look()
            except OSError as error:
                log_failure(_log, "the machine's addresses cannot be read; the old stay", error)


def _addresses() -> set[str]:
    families = {socket.AF_INET, socket.AF_INET6}
    return {
        one.address
        for card in psutil.net_if_addrs().values()
        for one in card
        # A link-local address means something only together with a card of who dials.
        if one.family in families and "%" not in one.address
    }
