"""Pieces of the swarm that need no server."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from fleetwire.cli import swarm as command
from fleetwire.swarm.behaviour import Failures, Output
from fleetwire.swarm.errors import SwarmError
from fleetwire.swarm.identities import FILE, Identity, Registry


@pytest.mark.parametrize(
    ("share", "asked", "failed"),
    [(0.0, 1000, 0), (1.0, 1000, 1000), (0.01, 1000, 10), (0.1, 30, 3), (0.333, 1000, 333)],
)
def test_failures_are_exact_at_every_count(share: float, asked: int, failed: int) -> None:
    failures = Failures(share)
    said = [failures.next() for _ in range(asked)]
    assert sum(said) == failed
    for n in range(asked):
        assert abs(sum(said[:n]) - n * share) < 1


@pytest.mark.parametrize("size", [0, 1, 64, 2000])
def test_output_has_its_size(size: int) -> None:
    assert len(Output(size).payload) == size


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("500B", 500), ("2KB", 2000), ("2kib", 2048), ("1.5K", 1500), ("64MiB", 2**26)],
)
def test_sizes(text: str, size: int) -> None:
    assert command._size(text) == size


@pytest.mark.parametrize("text", ["", "x", "-1", "1TB", "65MiB", "1 2"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        command._size(text)


@pytest.mark.parametrize("text", ["", "-1%", "101%", "1.01", "one", "%"])
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        command._share(text)


def agent(number: int) -> Identity:
    return Identity(number, f"swarm-{number}", "n" * 36, bytes(32))


def test_identities_are_kept(tmp_path: Path) -> None:
    with Registry(tmp_path / "state") as registry:
        registry.found("cluster")
        registry.add(agent(1))
        prefix = registry.prefix
    with Registry(tmp_path / "state") as registry:
        assert (registry.agents, registry.prefix) == ([agent(1)], prefix)


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    with Registry(tmp_path) as registry:
        registry.found("cluster")
        registry.add(agent(1))
        registry.add(agent(2))
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[:-9])
    with Registry(tmp_path) as registry:
        assert registry.agents == [agent(1)]
        registry.add(agent(3))
    with Registry(tmp_path) as registry:
        assert registry.agents == [agent(1), agent(3)]


def test_a_damaged_line_is_told(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"k":"swarm","cluster":"c","prefix":"p"}\nnonsense\n')
    with pytest.raises(SwarmError, match="line 2"), Registry(tmp_path):
        pass
