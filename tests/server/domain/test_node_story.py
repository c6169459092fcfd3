"""What happens to nodes is told: returns with why they were away, flapping, clocks."""

from __future__ import annotations

from fleetwire.core import limits
from fleetwire.core.absences import Ending, Life
from fleetwire.server.domain import node_story
from fleetwire.server.domain.views import NodeView
from fleetwire.testing.fake_node import FakeNode
from fleetwire.testing.heart import Clock, Heart, Serve

US = 1_000_000


async def told(one: Heart, node: FakeNode) -> list[str]:
    """Return what is recorded of a node, oldest first."""
    id_ = node.identity.node
    found = await one.database.read(lambda c: node_story.events(c, id_, before=None, limit=100))
    return [event.text for event in reversed(found)]


async def shown(one: Heart, name: str) -> NodeView:
    await one.leases.round()
    return await one.node_named(name)


async def test_a_return_says_why_the_node_was_away(serve: Serve) -> None:
    async with serve(loops=False) as one:
        node = await one.node("a")
        node.life = Life("agent-1", 1)
        async with node.connected():
            assert await told(one, node) == []  # it comes for the first time
        one.clock.ahead_s += 30
        async with node.connected():
            pass
        node.life = Life("agent-2", 2, before=Ending("boot", left=True))
        async with node.connected():
            pass
        node.life = Life("agent-3", 3, before=Ending("boot", oom=True))
        async with node.connected():
            pass
        node.life = Life("agent-3", 3, slept=3600.0)
        async with node.connected():
            pass
        node.boot_id = "another"
        node.life = Life("agent-4", 4, before=Ending("boot"))
        async with node.connected():
            pass
        network, restarted, killed, slept, crashed = await told(one, node)
        assert network == "is back after 30 s: the network: agent and machine ran on"
        assert restarted.endswith("the agent was restarted, in order")
        assert "OOM killer ended the agent" in killed
        assert slept.endswith("the machine slept for 3600 s")
        assert "without an orderly end" in crashed


async def test_the_servers_own_restart_is_no_story_of_its_nodes(serve: Serve) -> None:
    clock = Clock()
    async with serve(loops=False, clock=clock) as one:
        node = await one.node("a")
        node.life = Life("agent-1", 1)
        async with node.connected():
            pass
    async with serve(loops=False, clock=clock) as one:
        again = one.fake(node.identity)
        again.life = Life("agent-1", 1)
        async with again.connected():
            assert await told(one, again) == []
        # But what happened to the agent meanwhile is.
    async with serve(loops=False, clock=clock) as one:
        again = one.fake(node.identity)
        again.life = Life("agent-2", 2, before=Ending("boot"))
        async with again.connected():
            (line,) = await told(one, again)
            assert line == "is back: the agent died (killed or crashed) and was started again"


async def test_a_link_that_flaps_is_unstable_until_it_is_steady(serve: Serve) -> None:
    async with serve(loops=False) as one:
        node = await one.node("a")
        node.life = Life("agent-1", 1)
        for _ in range(limits.FLAPPING_RECONNECTS):
            async with node.connected():
                assert (await shown(one, "a")).link == "online"
            one.clock.ahead_s += 1
        async with node.connected():
            seen = await shown(one, "a")
            assert (seen.link, seen.reconnects) == ("unstable", limits.FLAPPING_RECONNECTS)
            assert "came back 5 times within 10 min" in seen.warnings[0]
            since = seen.link_since
            before = await told(one, node)
            assert before[-1] == "is unstable: its link came back 5 times within 10 min"
        one.clock.ahead_s += 1
        async with node.connected():
            seen = await shown(one, "a")
            assert (seen.link, seen.reconnects) == ("unstable", 6)
            assert seen.link_since == since  # the hello has not made it online meanwhile
            assert await told(one, node) == before  # counted, not told again and again
            one.clock.ahead_s += limits.FLAPPING_WITHIN_S + 1
            node.heartbeat()
            await node.wait(lambda: node.beats == 1)
            seen = await shown(one, "a")
            assert (seen.link, seen.reconnects, seen.warnings) == ("online", 0, ())
            assert (await told(one, node))[-1] == "is steady again"


async def test_a_lost_link_and_its_end_are_told(serve: Serve) -> None:
    async with serve(loops=False) as one:
        node = await one.node("a")
        async with node.connected():
            await one.leases.round()
        await one.wait(lambda: shown(one, "a"), lambda seen: seen.link == "unstable")
        one.clock.ahead_s += limits.OFFLINE_AFTER_S + 1
        assert (await shown(one, "a")).link == "offline"
        lost, offline = await told(one, node)
        assert lost.startswith("its link is lost: last heard")
        assert offline == "is offline: silent for 91 s"


async def test_a_wrong_clock_is_measured_and_warned_of(serve: Serve) -> None:
    async with serve(loops=False) as one:
        node = await one.node("a")
        async with node.connected():
            seen = await shown(one, "a")
            assert seen.warnings == ()
            node._clock = lambda: one.clock.wall() + 31 * US
            for beats in (1, 2):
                node.heartbeat(beats)
                await node.wait(lambda beats=beats: node.beats == beats)  # type: ignore[misc]
            seen = await shown(one, "a")
            assert seen.clock_skew is not None
            assert 30 < seen.clock_skew < 32
            assert "s ahead of the server's" in seen.warnings[0]
            assert "its clock is 31.0 s ahead" in (await told(one, node))[-1]
            node._clock = one.clock.wall
            for beats in (3, 4):
                node.heartbeat(beats)
                await node.wait(lambda beats=beats: node.beats == beats)  # type: ignore[misc]
            assert (await shown(one, "a")).warnings == ()
            assert (await told(one, node))[-1] == "its clock is right again"
