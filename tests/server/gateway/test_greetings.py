"""Hellos taken together."""

from __future__ import annotations

import asyncio

from fleetwire.protocol import messages
from fleetwire.server.domain import nodes as domain
from fleetwire.testing.fake_node import FakeNode
from fleetwire.testing.heart import Serve


async def test_hellos_that_come_together_are_taken_together(serve: Serve) -> None:
    async with serve() as one:
        nodes = [await one.node(f"n-{number}") for number in range(40)]
        before = one.database.statistics().use_cases
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(node.run_once()) for node in nodes]
            for node in nodes:
                await node.wait(node.opened.is_set)
            # Two use cases for each of them would be 80 already.
            assert one.database.statistics().use_cases - before < 60
            for task in running:
                task.cancel()


async def test_a_disabled_node_among_others_is_refused_alone(serve: Serve) -> None:
    async with serve() as one:
        nodes = [await one.node(f"n-{number}") for number in range(6)]
        out = nodes[2]
        await one.database.write(lambda tx: domain.set_admin(tx, out.identity.node, "disabled"))
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(node.run_once()) for node in nodes]
            for node in nodes:
                if node is not out:
                    await node.wait(node.opened.is_set)
            await out.wait(lambda: out.closed is not None)
            assert out.closed is not None
            assert out.closed[0] == messages.CLOSE_FORBIDDEN
            for task in running:
                task.cancel()


async def test_two_links_of_one_node_at_once_leave_the_newer(serve: Serve) -> None:
    async with serve() as one:
        identity = await one.identity("twin")
        twins = [one.fake(identity) for _ in range(2)]
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(node.run_once()) for node in twins]
            await one.wait(
                lambda: _closed(twins), lambda closed: closed == [messages.CLOSE_NEWER_LINK]
            )
            for task in running:
                task.cancel()


async def _closed(twins: list[FakeNode]) -> list[int]:
    return [node.closed[0] for node in twins if node.closed is not None]
