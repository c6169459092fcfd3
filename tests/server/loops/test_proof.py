"""Planted violations of law 8 are found, said, and shown where an operator looks."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from fleetwire.core import limits
from fleetwire.core.proof import SLACK_US
from fleetwire.core.retry import Retry
from fleetwire.core.specs import Step
from fleetwire.server.loops.proof import ProofLoop
from fleetwire.testing.fake_node import Behaviour
from fleetwire.testing.heart import Heart, Serve

PLANTED = {
    "no node": "UPDATE attempts SET node_id = NULL WHERE state = 'running'",
    "no last deadline": "UPDATE attempts SET lost_after = NULL WHERE state = 'running'",
    "after its last deadline": "UPDATE attempts SET lost_after = 5 WHERE state = 'running'",
    "another attempt": "UPDATE tasks SET attempt_id = 'x'",
    "shown ended": "UPDATE runs SET state = 'ended'",
    "given up": "UPDATE attempts SET state = 'exited', ended_at = 5, log_state = 'gone'",
    "not enrolled": "UPDATE attempts SET state = 'exited', ended_at = 5, node_id = 'x'",
    "all its tasks": "UPDATE attempts SET state = 'exited', log_state = 'sealed'",
}


def proof_of(one: Heart) -> ProofLoop:
    return ProofLoop(one.database, clock=one.clock.wall)


async def plant(one: Heart, statement: str) -> None:
    await one.database.write(lambda tx: tx.connection.execute(text(statement)))


@pytest.mark.parametrize("says", PLANTED)
async def test_a_planted_violation_is_said_loudly(serve: Serve, says: str) -> None:
    async with serve(loops=False) as one:
        proof = proof_of(one)
        node = await one.node("a", Behaviour(hold=True))
        async with node.connected():
            run_id = await one.submit()
            await one.dispatch.round()
            await one.wait_run(run_id, lambda run: run.counts["running"] == 1)
            assert "everything" in await proof.round()
            assert proof.warning is None
            await plant(one, PLANTED[says])
            with capture_logs() as logs:
                assert "would never end" in await proof.round()
            assert any(says in line["because"] for line in logs)
            assert all(line["log_level"] == "error" for line in logs)
            assert proof.warning is not None


async def test_what_waits_is_fine_until_nobody_has_ended_it(serve: Serve) -> None:
    async with serve(loops=False) as one:
        proof = proof_of(one)
        await one.identity("a")
        await one.submit(queue_timeout=60.0)
        one.clock.ahead_s += 60 + limits.PROOF_SLACK_S - 1
        assert "everything" in await proof.round()
        one.clock.ahead_s += 10
        assert "would never end" in await proof.round()
        await one.leases.round()
        assert "everything" in await proof.round()


async def test_a_retry_in_its_back_off_is_fine(serve: Serve) -> None:
    async with serve(loops=False) as one:
        proof = proof_of(one)
        node = await one.node("a")
        async with node.connected():
            run_id = await one.submit(
                Step("exit", code=1),
                retry=Retry(on_failure=True, backoff=3600.0),
                queue_timeout=60.0,
            )
            await one.dispatch.round()
            await one.wait_run(
                run_id, lambda run: run.tasks is not None and run.tasks[0].number > 1
            )
            one.clock.ahead_s += 3600 + SLACK_US / 1e6
            assert "everything" in await proof.round()
