"""The mass-offline breaker, over real links (P11)."""

from __future__ import annotations

from contextlib import AsyncExitStack

from fleetwire.core import limits
from fleetwire.server.domain import breaker
from fleetwire.server.domain.breaker import Breaker
from fleetwire.testing.fake_node import FakeNode
from fleetwire.testing.heart import Clock, Heart, Serve


async def standing(one: Heart) -> Breaker | None:
    return await one.database.read(breaker.standing)


async def nodes_of(one: Heart, many: int) -> list[FakeNode]:
    return [await one.node(f"n{number}") for number in range(many)]


async def beat(nodes: list[FakeNode]) -> None:
    """Let these be heard now."""
    for node in nodes:
        said = node.beats
        node.heartbeat()
        await node.wait(lambda node=node, said=said: node.beats > said)  # type: ignore[misc]


async def test_most_of_the_fleet_gone_opens_it_and_their_return_closes_it(serve: Serve) -> None:
    async with serve(loops=False) as one, AsyncExitStack() as stay:
        nodes = await nodes_of(one, 15)
        for node in nodes[:5]:
            await stay.enter_async_context(node.connected())
        async with AsyncExitStack() as going:
            for node in nodes[5:]:
                await going.enter_async_context(node.connected())
            await one.leases.round()
        one.clock.ahead_s += limits.OFFLINE_AFTER_S + 1
        await beat(nodes[:5])
        await one.leases.round()
        opened = await standing(one)
        assert opened is not None
        assert (opened.gone, opened.of) == (10, 15)
        for node in nodes[5:11]:
            await stay.enter_async_context(one.fake(node.identity).connected())
        await one.leases.round()
        assert await standing(one) is not None  # 11 of 15 are fewer than three quarters
        await stay.enter_async_context(one.fake(nodes[11].identity).connected())
        await one.leases.round()
        assert await standing(one) is None


async def test_exactly_half_is_no_mass_offline(serve: Serve) -> None:
    async with serve(loops=False) as one, AsyncExitStack() as stay:
        nodes = await nodes_of(one, 20)
        for node in nodes[:10]:
            await stay.enter_async_context(node.connected())
        async with AsyncExitStack() as going:
            for node in nodes[10:]:
                await going.enter_async_context(node.connected())
            await one.leases.round()
        one.clock.ahead_s += limits.OFFLINE_AFTER_S + 1
        await beat(nodes[:10])
        await one.leases.round()
        assert await standing(one) is None


async def test_it_stays_open_over_a_restart_until_a_person_says_so(serve: Serve) -> None:
    clock = Clock()
    async with serve(loops=False, clock=clock) as one:
        async with AsyncExitStack() as going:
            for node in await nodes_of(one, 10):
                await going.enter_async_context(node.connected())
        clock.ahead_s += limits.OFFLINE_AFTER_S + 1
        await one.leases.round()
        assert await standing(one) is not None
    async with serve(loops=False, clock=clock) as one:
        await one.leases.round()
        assert await standing(one) is not None
        assert await one.database.write(lambda tx: breaker.close(tx, "closed by tester"))
        assert not await one.database.write(lambda tx: breaker.close(tx, "again"))
        await one.leases.round()
        assert await standing(one) is None


async def test_a_person_who_closes_it_is_not_overruled_by_the_same_departures(
    serve: Serve,
) -> None:
    async with serve(loops=False) as one:
        async with AsyncExitStack() as going:
            for node in await nodes_of(one, 10):
                await going.enter_async_context(node.connected())
        one.clock.ahead_s += limits.OFFLINE_AFTER_S + 1
        await one.leases.round()
        assert await standing(one) is not None
        await one.leases.round()
        await one.database.write(lambda tx: breaker.close(tx, "closed by tester"))
        await one.leases.round()
        assert await standing(one) is None


async def test_a_restart_of_the_server_is_no_mass_offline(serve: Serve) -> None:
    clock = Clock()
    async with serve(loops=False, clock=clock) as one:
        nodes = await nodes_of(one, 12)
        async with AsyncExitStack() as going:
            for node in nodes:
                await going.enter_async_context(node.connected())
            await one.leases.round()
    clock.ahead_s += 3600
    async with serve(loops=False, clock=clock) as one, AsyncExitStack() as back:
        await one.leases.round()
        assert await standing(one) is None
        clock.ahead_s += limits.OFFLINE_AFTER_S - 2
        for node in nodes:
            await back.enter_async_context(one.fake(node.identity).connected())
        clock.ahead_s += 3
        await one.leases.round()
        assert await standing(one) is None


async def test_what_was_not_started_is_not_placed_anew_while_it_is_open(serve: Serve) -> None:
    async with serve(loops=False) as one, AsyncExitStack() as stay:
        silent = await one.node("a")
        async with silent.connected():
            pass  # still online when dispatch looks
        run_id = await one.submit(any=1)
        await one.dispatch.round()
        other = await one.node("b")
        await stay.enter_async_context(other.connected())
        await one.database.write(lambda tx: breaker.open_(tx, gone=11, of=20))
        await one.database.write(lambda tx: breaker.open_(tx, gone=1, of=1))  # stays as it was
        one.clock.ahead_s += limits.OFFLINE_AFTER_S + 1
        await beat([other])
        await one.leases.round()  # given back: its node is offline, and never had the order
        one.clock.ahead_s += 1
        await one.dispatch.round()
        (first, *_) = await one.story(run_id)
        assert "11 of 20 nodes went offline together" in first
        await one.database.write(lambda tx: breaker.close(tx, "closed by tester"))
        await one.dispatch.round()
        run = await one.wait_run(run_id)
        assert run.tasks is not None
        assert (run.outcome, run.tasks[0].node) == ("succeeded", "b")
