"""A short round of each kind of the fault lab; `./dev faults` plays long ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fleetwire.testing.faults.kinds import KINDS
from fleetwire.testing.faults.stage import Stage
from fleetwire.testing.faults.system import System
from fleetwire.testing.simulation.chance import Chance

pytestmark = [pytest.mark.faults, pytest.mark.slow]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with System(tmp_path_factory.mktemp("system"), nodes=2) as up:
        yield up


@pytest.mark.parametrize(
    "kind", ["server-kill", "spawner-kill", "shim-kill", "all-kill", "pause", "network"]
)
def test_a_short_round_breaks_no_promise(system: System, kind: str) -> None:
    stage = Stage(system, Chance(f"short {kind}"), kind)
    stage.scale = 0.15
    KINDS[kind].play(stage)
    assert stage.broken == []
    assert stage.faults.total() >= 2
    assert stage.outcomes.total()
