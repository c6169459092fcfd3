"""A world driven step by step by Hypothesis: what it finds, it makes small.

The rules are the faults; between them virtual time passes. The end of each example is the calm in
which everything has to end.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from fleetwire.testing.simulation.faults import Faults
from fleetwire.testing.simulation.installed import installed
from fleetwire.testing.simulation.node import SimulatedNode, SimulatedTask
from fleetwire.testing.simulation.plan import Plan
from fleetwire.testing.simulation.world import World


def _any(below: int) -> st.SearchStrategy[int]:
    """A number; not `integers`, whose choice depends on the modules that other tests have imported:
    an example that is found once must be found by each run.
    """
    return st.sampled_from(range(below))


class Machine(RuleBasedStateMachine):
    """One world; `teardown` lets it end and judges it."""

    def __init__(self) -> None:
        super().__init__()
        self._in_force = installed()
        self._where = self._in_force.__enter__()
        self.world: World | None = None

    @initialize(seed=_any(1_001), nodes=_any(3).map(lambda n: n + 1))
    def begin(self, seed: int, nodes: int) -> None:
        self.world = World(seed, Plan(nodes=nodes, runs=4, busy_s=1e6), self._where)
        self.world.begin()

    @rule(kind=st.sampled_from(sorted(Faults.KINDS)), node=_any(3))
    def fail(self, kind: str, node: int) -> None:
        assert self.world is not None
        self.world.faults.do(kind, self.world.nodes[node % len(self.world.nodes)])

    @rule(seconds=st.sampled_from((0.01, 0.1, 0.5, 3.0)))
    def wait(self, seconds: float) -> None:
        assert self.world is not None
        self.world.let_pass(seconds)

    @rule()
    def submit(self) -> None:
        assert self.world is not None
        self.world.spawn(self.world.people.submit_runs(1, 0.1))

    def teardown(self) -> None:
        try:
            if self.world is not None:
                story = self.world.finish()
                assert story.violation is None, "\n".join([*story.trace, story.violation])
        finally:
            self._in_force.__exit__(None, None, None)


@pytest.mark.slow
def test_an_agent_buries_whose_task_outlives_shim_and_spawner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the machine found it: what lives is asked whether it is a copy's."""
    outlived: list[SimulatedTask] = []
    look = SimulatedNode.survivors

    def survivors(node: SimulatedNode, attempt: str) -> list[SimulatedTask]:
        found = look(node, attempt)
        outlived.extend(found)
        return found

    monkeypatch.setattr(SimulatedNode, "survivors", survivors)
    state = Machine()
    try:
        state.begin(seed=217, nodes=1)
        state.submit()
        for kind in ("stall", "stall"):
            state.fail(kind, 0)
        state.submit()
        state.submit()
        state.wait(0.5)
        state.fail("full disk", 0)
        state.wait(0.5)
        state.submit()
        state.submit()
        for seconds in (3.0, 3.0, 0.01):
            state.wait(seconds)
        for kind in ("kill spawner", "kill shim"):
            state.fail(kind, 0)
        state.submit()
        state.wait(0.01)
        state.fail("crash shim at write", 0)
        for _ in range(3):
            state.submit()
        state.wait(0.01)
        state.fail("drop", 0)
        state.submit()
    finally:
        state.teardown()
    assert outlived  # the scene took place; else look for another seed


@pytest.mark.slow
def test_machine() -> None:
    case: Any = Machine.TestCase
    case.settings = settings(
        max_examples=12,
        stateful_step_count=25,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    case("runTest").runTest()
