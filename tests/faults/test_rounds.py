"""A short round of the kinds that need nothing special; `./dev faults` plays them all, and long."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from fleetwire.testing.faults.kinds import KINDS
from fleetwire.testing.faults.stage import Stage
from fleetwire.testing.faults.system import System
from fleetwire.testing.simulation.chance import Chance

pytestmark = [pytest.mark.faults, pytest.mark.slow]

# Some crash points.
POINTS = [("record", 9), ("agent", 5), ("shim", 6)]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with System(tmp_path_factory.mktemp("system"), nodes=1) as up:
        yield up


@pytest.mark.parametrize(
    ("kind", "k"),
    [
        ("server-kill", 0),
        ("all-kill", 0),
        ("pause", 0),
        ("network", 0),
        ("spool", 0),
        *((f"crash-points-{what}", k) for what, k in POINTS),
    ],
)
def test_a_short_round_breaks_no_promise(system: System, kind: str, k: int) -> None:
    if k and shutil.which("strace") is None:
        pytest.skip("not run: there is no program strace (Debian: apt-get install strace)")
    stage = Stage(system, Chance(f"short {kind}"), kind)
    stage.scale = 0.15
    stage.k = k
    KINDS[kind].play(stage)
    assert stage.broken == []
    assert stage.faults
    assert stage.outcomes.total()
