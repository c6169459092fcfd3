"""What a commit makes possible starts in that commit, without a look at the whole fleet."""

from __future__ import annotations

from fleetwire.core.specs import Step
from fleetwire.server.domain import dispatch
from fleetwire.server.store import waiting
from fleetwire.testing.fake_node import Behaviour
from fleetwire.testing.heart import Serve


async def test_a_node_that_becomes_free_takes_what_waits_for_it(serve: Serve) -> None:
    async with serve() as one:
        node = await one.node("small", Behaviour(hold=True), capacity=1)
        async with node.connected():
            first = await one.submit(Step("print", text="1"), nodes=("small",))
            await node.wait(lambda: len(node.starts) == 1)
            second = await one.submit(Step("print", text="2"), nodes=("small",))
            await one.wait(
                lambda: one.run(second),
                lambda run: "at capacity" in str(run.tasks[0].reason),
            )
            node.release(node.starts[0][0])
            await one.wait_run(first)
            await node.wait(lambda: len(node.starts) == 2)
            node.release(node.starts[1][0])
            assert (await one.wait_run(second)).outcome == "succeeded"


async def test_a_view_among_few_nodes_reads_no_others(serve: Serve) -> None:
    async with serve(loops=False) as one:
        for number in range(5):
            await one.identity(f"n-{number}")
        await one.submit(Step("print", text="x"), nodes=("n-1",))
        now = one.clock.wall()
        few = await one.database.read(lambda c: dispatch.view(c, now, among=(), page_after=None))
        assert [node.name for node in few.nodes.values()] == ["n-1"]
        every = await one.database.read(
            lambda c: dispatch.view(c, now, among=None, page_after=None)
        )
        assert len(every.nodes) == 5
        assert [w.attempt for w in few.waiting] == [w.attempt for w in every.waiting]
        assert await one.database.read(waiting.is_any)


async def test_a_node_that_comes_back_gets_all_that_waited_for_it(serve: Serve) -> None:
    async with serve() as one:
        node = await one.node("large", Behaviour(hold=True), capacity=500)
        waiting_for_it = dispatch.PER_NODE * 2 + 10
        for _ in range(waiting_for_it):
            await one.submit(Step("print", text="x"), nodes=("large",))
        async with node.connected():
            await node.wait(lambda: len(node.starts) == waiting_for_it)
