"""What an enrolment token is bound to besides its labels: a name pattern and a network."""

from __future__ import annotations

import ipaddress
import re
from fnmatch import translate
from typing import Final

from fleetwire.core.errors import FleetwireError

PATTERN_CHARS: Final = 128
_PATTERN: Final = re.compile(r"[A-Za-z0-9._*?\[\]-]+")


class BadTicket(FleetwireError):
    """What a token shall be bound to cannot be understood."""

    code = "bad-ticket"


def check(name_pattern: str | None, network: str | None) -> None:
    """Raise BadTicket for a pattern or a network that is none."""
    if name_pattern is not None and (
        len(name_pattern) > PATTERN_CHARS or not _PATTERN.fullmatch(name_pattern)
    ):
        raise BadTicket(
            f"{name_pattern[:80]!r} is no pattern for names of nodes.",
            hint="Use what names have, and * and ?: web-*.",
            field="name",
        )
    if network is not None:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise BadTicket(
                f"{network[:80]!r} is no network: {error}.",
                hint="Use an address or a CIDR block: 10.1.0.0/16.",
                field="network",
            ) from None


def objection(
    *, name_pattern: str | None, network: str | None, name: str, address: str | None
) -> str | None:
    """Say why a token that is good otherwise cannot be used by this name from this address, or
    None. This is for the record: who shows it is told nothing.
    """
    if name_pattern is not None and not re.fullmatch(translate(name_pattern), name):
        return f"bound to names like {name_pattern}"
    if network is not None and not _is_in(address, network):
        return f"bound to the network {network}"
    return None


def _is_in(address: str | None, network: str) -> bool:
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped in ipaddress.ip_network(network)
    return found in ipaddress.ip_network(network)
