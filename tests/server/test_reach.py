from __future__ import annotations

import pytest

from fleetwire.server.reach import in_urls, is_loopback, of_this_machine, reached_by

LOOPBACK = {"localhost", "127.0.0.1", "::1"}


def reached(host: str, *names: str) -> frozenset[str]:
    return reached_by(host, names, machine="Fleet-1", addresses={"10.0.0.5", "fd00::5"})


def test_loopback_answers_to_loopback_and_to_what_the_settings_name() -> None:
    assert reached("127.0.0.1") == LOOPBACK
    assert reached("127.0.0.1", "Fleet.Example", "[fd00::9]") == {
        *LOOPBACK, "fleet.example", "fd00::9",
    }  # fmt: skip


def test_one_address_is_one_more() -> None:
    assert reached("10.0.0.5") == {*LOOPBACK, "10.0.0.5"}
    assert reached("[fd00::5]") == {*LOOPBACK, "fd00::5"}


@pytest.mark.parametrize("everywhere", ["0.0.0.0", "::", "[::]"])
def test_all_addresses_are_all_of_this_machine(everywhere: str) -> None:
    assert reached(everywhere) == {*LOOPBACK, "fleet-1", "10.0.0.5", "fd00::5"}


def test_as_urls_have_them() -> None:
    assert in_urls({"a", "::1"}) == {"a", "[::1]"}


def test_this_machine_has_no_address_with_a_card_in_it() -> None:
    found = of_this_machine("0.0.0.0", ["x"])
    assert found >= {*LOOPBACK, "x"}
    assert not any("%" in one for one in found)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "::1", "[::1]"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "fleet.example", "", "localhost."])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)
