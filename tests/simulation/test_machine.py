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
from fleetwire.testing.simulation.plan import Plan
from fleetwire.testing.simulation.world import World


class Machine(RuleBasedStateMachine):
    """One world; `teardown` lets it end and judges it."""

    def __init__(self) -> None:
        super().__init__()
        self._in_force = installed()
        self._where = self._in_force.__enter__()
        self.world: World | None = None

    @initialize(seed=st.integers(0, 1_000), nodes=st.integers(1, 3))
    def begin(self, seed: int, nodes: int) -> None:
        self.world = World(seed, Plan(nodes=nodes, runs=4, busy_s=1e6), self._where)
        self.world.begin()

    @rule(kind=st.sampled_from(sorted(Faults.KINDS)), node=st.integers(0, 2))
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
def test_machine() -> None:
    case: Any = Machine.TestCase
    case.settings = settings(
        max_examples=12,
        stateful_step_count=25,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    case("runTest").runTest()
