"""A run's timeline: its story, its nodes' and the system's, in one order, in pages."""

from __future__ import annotations

import pytest

from fleetwire.core.absences import Life
from fleetwire.server.domain import breaker, nodes, timeline
from fleetwire.server.domain.errors import NotFound
from fleetwire.server.domain.timeline import TimelineLine
from fleetwire.server.domain.views import RunView
from fleetwire.testing.fake_node import Behaviour
from fleetwire.testing.heart import Heart, Serve, new_id


async def lines(one: Heart, run_id: str, page: int = 100) -> list[TimelineLine]:
    found: list[TimelineLine] = []
    after: int | None = None
    while True:
        some = await one.database.read(
            lambda c, after=after: timeline.stretch(c, run_id, after=after, limit=page)  # type: ignore[misc]
        )
        assert len(some.lines) <= page
        found += some.lines
        after = some.last
        if after is None:
            return found


async def test_the_run_its_node_and_the_system_are_told_in_order(serve: Serve) -> None:
    async with serve(loops=False) as one:
        await one.identity("elsewhere")
        node = await one.node("a", Behaviour(hold=True))
        node.life = Life("agent-1", 1)
        async with node.connected():
            run_id = await one.submit(nodes=("a",))
            await one.dispatch.round()
            await one.wait_run(run_id, lambda run: run.state == "running")
        one.clock.ahead_s += 100
        await one.leases.round()
        await one.database.write(lambda tx: breaker.open_(tx, gone=11, of=20))
        async with node.connected():
            await one.stop(run_id)
            (held,) = node.spool.values()
            node._end(held, one.clock.wall(), 0)

            async def look() -> RunView:
                await one.sealing.round()
                return await one.run(run_id)

            await one.wait(look, lambda run: run.sealed)
        # What happens to the node later is no part of it any more.
        await one.database.write(lambda tx: nodes.set_admin(tx, node.identity.node, "draining"))
        told = await lines(one, run_id)
        assert [(line.kind, line.task, line.node) for line in told] == [
            ("run", None, None),
            *[("task", 0, "a")] * 2,
            ("node", None, "a"),
            ("system", None, None),
            ("node", None, "a"),
            *[("task", 0, "a")] * 3,
        ]
        begins = (
            "submitted by tester",
            "assigned with epoch",
            "started",
            "is offline: silent for 100 s",
            "the mass-offline breaker opened: 11 of 20 nodes",
            "is back after 100 s: the network",
            "stop asked: stopped by tester",
            "ended with exit code 0",
            "its log is complete: 6 bytes",
        )
        for line, begin in zip(told, begins, strict=True):
            assert line.text.startswith(begin)


@pytest.mark.parametrize("page", [1, 2, 3, 7])
async def test_pages_leave_nothing_out_and_say_nothing_twice(serve: Serve, page: int) -> None:
    async with serve() as one:
        node = await one.node("a")
        async with node.connected():
            run_id = await one.submit()
            await one.wait_run(run_id)
        whole = await lines(one, run_id)
        assert len(whole) >= 4
        assert await lines(one, run_id, page) == whole


async def test_a_run_that_nobody_has_looked_at_was_submitted(serve: Serve) -> None:
    async with serve(loops=False) as one:
        await one.identity("a")
        run_id = await one.submit()
        (only,) = await lines(one, run_id)
        assert (only.kind, only.text) == ("run", "submitted by tester")
        missing = new_id()
        with pytest.raises(NotFound):
            await lines(one, missing)
