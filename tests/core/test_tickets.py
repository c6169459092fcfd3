from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetwire.core.tickets import PATTERN_CHARS, BadTicket, check, objection


@pytest.mark.parametrize("pattern", [None, "web-*", "web-?", "db-[12]", "a" * PATTERN_CHARS])
@pytest.mark.parametrize("network", [None, "10.0.0.0/8", "10.0.0.5", "fd00::/8"])
def test_what_a_token_may_be_bound_to(pattern: str | None, network: str | None) -> None:
    check(pattern, network)


@pytest.mark.parametrize("pattern", ["", "a" * (PATTERN_CHARS + 1), "a b", "a/../b", "\n"])
def test_no_pattern(pattern: str) -> None:
    with pytest.raises(BadTicket):
        check(pattern, None)


@pytest.mark.parametrize("network", ["", "10.0.0.1/8", "10.0.0.0/33", "web", "10.0.0"])
def test_no_network(network: str) -> None:
    with pytest.raises(BadTicket):
        check(None, network)


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("web-*", "web-1", True),
        ("web-*", "xweb-1", False),
        ("web-*", "web-1\n", True),  # what is no name is refused elsewhere
        ("web-?", "web-12", False),
        ("web", "web-1", False),
        ("*.example", "a.example.evil", False),
        ("a.b", "axb", False),
    ],
)
def test_names(pattern: str, name: str, *, fits: bool) -> None:
    why = objection(name_pattern=pattern, network=None, name=name, address=None)
    assert (why is None) is fits


@pytest.mark.parametrize(
    ("network", "address", "fits"),
    [
        ("10.1.0.0/16", "10.1.255.255", True),
        ("10.1.0.0/16", "10.2.0.0", False),
        ("10.1.0.0/16", "::ffff:10.1.0.1", True),
        ("10.1.0.0/16", None, False),
        ("10.1.0.0/16", "nonsense", False),
        ("10.1.0.7", "10.1.0.7", True),
        ("fd00::/8", "10.1.0.7", False),
    ],
)
def test_networks(network: str, address: str | None, *, fits: bool) -> None:
    why = objection(name_pattern=None, network=network, name="a", address=address)
    assert (why is None) is fits


@given(st.ip_addresses(v=4), st.integers(0, 32), st.ip_addresses(v=4))
def test_a_network_is_a_prefix(base: object, bits: int, other: object) -> None:
    network = int(base) >> (32 - bits) << (32 - bits)  # type: ignore[call-overload]
    text = ".".join(str(network >> shift & 255) for shift in (24, 16, 8, 0)) + f"/{bits}"
    inside = int(other) >> (32 - bits) == network >> (32 - bits)  # type: ignore[call-overload]
    why = objection(name_pattern=None, network=text, name="a", address=str(other))
    assert (why is None) is inside
