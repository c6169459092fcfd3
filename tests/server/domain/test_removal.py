"""Deleting nodes."""

from __future__ import annotations

import pytest

from fleetwire.core import limits
from fleetwire.server.domain import nodes, removal
from fleetwire.server.domain.errors import NotFound
from fleetwire.server.domain.removal import Deleted, NodeAtWork
from fleetwire.testing.fake_node import Behaviour, FakeNode
from fleetwire.testing.heart import Heart, Serve, new_id


async def delete(one: Heart, node: FakeNode, *, force: bool = False) -> Deleted:
    id_ = node.identity.node
    return await one.database.write(
        lambda tx: removal.delete(tx, id_, word=new_id(), by="tester", force=force)
    )


async def test_a_node_that_is_gone_takes_its_attempts_with_it(serve: Serve) -> None:
    async with serve(loops=False) as one:
        node = await one.node("a", Behaviour(hold=True))
        async with node.connected():
            run_id = await one.submit()
            await one.dispatch.round()
            await one.wait_run(run_id, lambda run: run.state == "running")
        waiting = await one.submit(nodes=("a",))
        one.clock.ahead_s += limits.OFFLINE_AFTER_S + 1
        await one.leases.round()
        gone = await delete(one, node)
        assert (gone.name, gone.lost) == ("a", 1)
        await one.sealing.round()
        run = await one.run(run_id)
        assert run.tasks is not None
        assert (run.outcome, run.sealed, run.tasks[0].node) == ("lost", True, "a")
        assert run.tasks[0].reason == "its node was deleted"
        assert (await one.run(waiting)).outcome == "expired"
        assert "its node was deleted" in (await one.story(waiting))[0]
        back = one.fake(node.identity)
        await back.run_once()
        assert back.closed is not None
        assert back.closed[0] == 4401
        with pytest.raises(NotFound):
            await delete(one, node)
        # The name is free again, and the old run still tells where it was.
        assert (await one.node("a")).identity.node != node.identity.node
        assert "lost: its node was deleted" in await one.story(run_id)


async def test_a_node_with_a_link_is_deleted_only_by_force(serve: Serve) -> None:
    async with serve() as one:
        node = await one.node("a", Behaviour(hold=True))
        async with node.connected():
            run_id = await one.submit()
            await one.wait_run(run_id, lambda run: run.state == "running")
            with pytest.raises(NodeAtWork, match="Node a is online and has 1 attempt at work"):
                await delete(one, node)
            assert (await one.run(run_id)).state == "running"
            assert (await delete(one, node, force=True)).lost == 1
            await node.wait(lambda: node.closed is not None)
            assert node.closed is not None
            assert node.closed[0] in {4403, 4409}
            assert (await one.wait_run(run_id)).outcome == "lost"


async def test_what_it_was_never_offered_goes_to_another_node(serve: Serve) -> None:
    async with serve(loops=False) as one:
        silent = await one.node("a")
        async with silent.connected():
            pass
        run_id = await one.submit(any=1)
        await one.dispatch.round()
        one.clock.ahead_s += limits.OFFLINE_AFTER_S + 1
        await one.database.write(
            lambda tx: nodes.write_links(
                tx, nodes.Noticed(states={silent.identity.node: "offline"})
            )
        )
        assert (await delete(one, silent)).lost == 0
        async with (await one.node("b")).connected():
            await one.dispatch.round()
            run = await one.wait_run(run_id)
            assert run.tasks is not None
            assert (run.outcome, run.tasks[0].node) == ("succeeded", "b")


async def test_a_drained_node_keeps_that_over_a_restart_of_the_server(serve: Serve) -> None:
    async with serve(loops=False) as one:
        node = await one.node("a")
        async with node.connected():
            await one.database.write(
                lambda tx: nodes.set_admin(tx, node.identity.node, "draining", by="tester")
            )
            await node.wait(lambda: node.revision == 1)
            await one.leases.round()
    async with serve(loops=False) as one:
        again = one.fake(node.identity)
        again.revision, again.admin = 1, "draining"
        async with again.connected():

            async def admin() -> str:
                await one.leases.round()
                return (await one.node_named("a")).admin

            await one.wait(admin, lambda seen: seen == "drained")
            run_id = await one.submit()
            await one.dispatch.round()
            assert "waits: node a is drained" in await one.story(run_id)
            assert not again.starts
