"""Every planted fault is found within a bounded number of worlds: the invariants can fail."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fleetwire.testing.simulation.installed import Installed
from fleetwire.testing.simulation.plan import Plan
from fleetwire.testing.simulation.world import World


def _load() -> ModuleType:
    """Load the neighbour: a folder of tests is no package."""
    path = Path(__file__).with_name("mutants.py")
    spec = importlib.util.spec_from_file_location("simulation_mutants", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


MUTANTS = _load().MUTANTS

# The faults that the issue names, and the mutants that stand for them.
NAMED = {
    "acknowledge before commit": "acknowledge_before_commit",
    ">= for > on epochs": "a_link_of_the_same_epoch_is_stale_for_the_log_store",
    "offset off by one": "the_server_s_length_is_one_too_long",
    "absence taken as stop": "absence_is_taken_as_stop",
    "retry of an unknown commit": "an_unknown_commit_is_tried_again",
    "lease counted from receipt": "a_lease_counts_from_receipt",
    "seal before the log commit": "a_seal_does_not_wait_for_the_log_s_commit",
    "nudge before commit": "nudge_before_commit",
}


def test_there_are_enough_and_the_named_ones_among_them() -> None:
    names = [one.name for one in MUTANTS]
    assert len(set(names)) == len(names) >= 20
    assert set(NAMED.values()) <= set(names)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=[one.name for one in MUTANTS])
def test_mutant_is_caught(where: Installed, monkeypatch: pytest.MonkeyPatch, mutant: Any) -> None:
    mutant.plant(monkeypatch)
    for seed in range(mutant.seeds):
        plan = dataclasses.replace(Plan.of(seed), **mutant.plan)
        if World(seed, plan, where).run().violation is not None:
            return
    pytest.fail(f"{mutant.name} lived through {mutant.seeds} worlds")
