"""Silence, deadlines and deleted nodes."""

from __future__ import annotations

from sqlalchemy import text

from fleetwire.core import limits
from fleetwire.core.desired import Desired
from fleetwire.core.specs import Step
from fleetwire.server.domain import nodes, views
from fleetwire.testing.fake_node import Behaviour
from fleetwire.testing.heart import Clock, Heart, Serve


async def link_of(one: Heart, name: str) -> str:
    return (await one.node_named(name)).link


async def test_a_node_is_offline_after_ninety_seconds_and_not_before(serve: Serve) -> None:
    async with serve(loops=False) as one:
        node = await one.node("a")
        async with node.connected():
            assert await link_of(one, "a") == "online"
            one.clock.ahead_s += 16
            await one.leases.round()
            assert await link_of(one, "a") == "unstable"
            node.heartbeat()
            await node.wait(lambda: node.beats == 1)
            await one.leases.round()
            assert await link_of(one, "a") == "online"
        await one.wait(lambda: _round(one, "a"), lambda link: link == "unstable")
        one.clock.ahead_s += limits.OFFLINE_AFTER_S - 2
        assert await _round(one, "a") == "unstable"
        one.clock.ahead_s += 3
        assert await _round(one, "a") == "offline"
        one.clock.ahead_s += 3600
        assert await _round(one, "a") == "offline"


async def _round(one: Heart, name: str) -> str:
    await one.leases.round()
    return await link_of(one, name)


async def test_a_restarted_server_gives_everyone_a_fresh_start(serve: Serve) -> None:
    clock = Clock()
    async with serve(loops=False, clock=clock) as one:
        node = await one.node("a")
        async with node.connected():
            pass
    clock.ahead_s += 3600
    async with serve(loops=False, clock=clock) as one:
        assert await _round(one, "a") in {"online", "unstable"}
        clock.ahead_s += 89
        assert await _round(one, "a") == "unstable"
        clock.ahead_s += 2
        assert await _round(one, "a") == "offline"


async def test_a_run_for_an_offline_node_waits_and_then_expires(serve: Serve) -> None:
    async with serve(loops=False) as one:
        await one.identity("a")
        run_id = await one.submit(queue_timeout=60.0)
        await one.dispatch.round()
        assert "waits: node a is offline" in await one.story(run_id)
        one.clock.ahead_s += 59
        await one.leases.round()
        assert (await one.run(run_id)).state == "pending"
        one.clock.ahead_s += 2
        await one.leases.round()
        run = await one.run(run_id)
        assert (run.state, run.outcome, run.sealed) == ("ended", "expired", True)
        assert "node a is offline" in (await one.story(run_id))[0]


async def test_what_was_never_offered_goes_to_another_node(serve: Serve) -> None:
    async with serve(loops=False) as one:
        silent = await one.node("a")
        async with silent.connected():
            pass  # its link state is still online when dispatch looks
        run_id = await one.submit(any=1)
        await one.dispatch.round()
        run = await one.run(run_id)
        assert run.tasks is not None
        assert (run.tasks[0].state, run.tasks[0].node) == ("assigned", "a")
        one.clock.ahead_s += 91
        await one.leases.round()
        assert (await one.run(run_id)).counts["pending"] == 1
        other = await one.node("b")
        async with other.connected():
            await one.dispatch.round()
            run = await one.wait_run(run_id)
            assert run.tasks is not None
            assert (run.outcome, run.tasks[0].node) == ("succeeded", "b")
        late = one.fake(silent.identity)
        async with late.connected():
            assert not late.starts


async def test_what_was_offered_stays_where_it_is_however_long_the_silence(serve: Serve) -> None:
    async with serve(loops=False) as one:
        node = await one.node("a", Behaviour(silent=True))
        await one.node("b")
        async with node.connected():
            run_id = await one.submit(any=1)
            await one.dispatch.round()
            await node.wait(
                lambda: any(isinstance(e, Desired) and e.attempts for e in node.received)
            )
        one.clock.ahead_s += 3600
        await one.leases.round()
        await one.dispatch.round()
        run = await one.run(run_id)
        assert run.tasks is not None
        assert (run.tasks[0].state, run.tasks[0].node) == ("assigned", "a")
        assert "on its way to start on a, which is offline" in (await one.story(run_id))[0]


async def test_a_running_attempt_is_lost_only_after_lost_after_and_its_exit_is_kept(
    serve: Serve,
) -> None:
    async with serve(loops=False) as one:
        node = await one.node("a", Behaviour(hold=True))
        async with node.connected():
            run_id = await one.submit(Step("print", text="hello"))
            await one.dispatch.round()
            await one.wait_run(run_id, lambda run: run.state == "running")
            await node.wait(lambda: len(node.received) >= 4)
        one.clock.ahead_s += 7200 + 24 * 3600 - 60
        await one.leases.round()
        assert (await one.run(run_id)).state == "running"
        one.clock.ahead_s += 120
        await one.leases.round()
        await one.sealing.round()
        run = await one.run(run_id)
        assert (run.outcome, run.sealed) == ("lost", True)
        assert run.tasks is not None
        assert run.tasks[0].log.state == "missing"
        back = one.fake(node.identity)
        back.spool = node.spool
        (held,) = back.spool.values()
        held.write(b"and more\n", 1, 1)
        async with back.connected():
            back._end(held, one.clock.wall(), 0)

            async def look() -> views.RunView:
                await one.sealing.round()
                return await one.run(run_id)

            run = await one.wait(look, lambda run: bool(run.tasks and run.tasks[0].log.complete))
            assert run.outcome == "lost"
            assert run.tasks is not None
            assert run.tasks[0].late_exit is not None
            assert run.tasks[0].late_exit.exit_code == 0
            assert run.tasks[0].log.length == len(b"hello\nand more\n")
            await back.wait(lambda: not back.spool)


async def test_what_a_deleted_node_had_is_lost(serve: Serve) -> None:
    async with serve(loops=False) as one:
        node = await one.node("a", Behaviour(hold=True))
        async with node.connected():
            run_id = await one.submit()
            await one.dispatch.round()
            await one.wait_run(run_id, lambda run: run.state == "running")
            await one.database.write(lambda tx: tx.connection.execute(text("DELETE FROM nodes")))
            await one.leases.round()
            await one.sealing.round()
            run = await one.run(run_id)
            assert (run.outcome, run.sealed) == ("lost", True)


async def test_the_story_of_a_node_that_went_silent_is_told(serve: Serve) -> None:
    async with serve(loops=False) as one:
        node = await one.node("a", Behaviour(hold=True))
        async with node.connected():
            run_id = await one.submit()
            await one.dispatch.round()
            await one.wait_run(run_id, lambda run: run.state == "running")
        one.clock.ahead_s += 100
        await one.leases.round()
        assert (await one.run(run_id)).state == "running"
        now, offline, *_ = await one.story(run_id)
        assert now.startswith("is running on a, which is offline since ")
        assert offline == "the node is offline: silent for 100 s"
        page = await one.database.read(lambda c: views.list_nodes(c, limit=10))
        assert [view.link for view in page.items] == ["offline"]
        assert page.items[0].last_seen_at is not None


async def test_drains_are_confirmed_by_the_loop_too(serve: Serve) -> None:
    async with serve(loops=False) as one:
        node = await one.node("a")
        async with node.connected():
            await one.database.write(lambda tx: nodes.set_admin(tx, node.identity.node, "draining"))
            await node.wait(lambda: node.revision == 1)

            async def admin() -> str:
                await one.leases.round()
                return (await one.node_named("a")).admin

            await one.wait(admin, lambda seen: seen == "drained")
