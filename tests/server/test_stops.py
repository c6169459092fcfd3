"""A stop goes from the wish to the node only by way of the signing key."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from fleetwire.core.desired import Desired, Observation, Wanted
from fleetwire.core.happenings import Started
from fleetwire.core.sparing import Sparing
from fleetwire.core.stops import StopOrder, stop_bytes
from fleetwire.protocol import messages
from fleetwire.protocol.versions import FEATURES, SIGNED_STOPS
from fleetwire.server.domain import stops as domain
from fleetwire.server.domain.stops import StopSigning
from fleetwire.server.loops.retention import RetentionLoop
from fleetwire.server.signing import Signer
from fleetwire.server.store import stops as rows
from fleetwire.server.store.tables import attempts, stop_orders
from fleetwire.testing.fake_node import Behaviour, FakeNode
from fleetwire.testing.heart import Heart, Serve
from fleetwire.testing.lab import Lab, wait_until


def verifies(key: bytes, data: bytes, signature: bytes) -> bool:
    from fleetwire.agent import keys  # noqa: PLC0415 - as the agent does it

    return keys.verifies(key, data, signature)


async def living(one: Heart, node: FakeNode, **fields: Any) -> str:
    run = await one.submit(nodes=(node.identity.node,), **fields)
    await one.wait_run(run, lambda view: view.state == "running")
    return run


def stops_heard(node: FakeNode) -> list[Wanted]:
    levels = [event for event in node.received if isinstance(event, Desired)]
    return [wanted for level in levels for wanted in level.attempts if wanted.wish == "stop"]


async def stored(one: Heart) -> list[Any]:
    query = select(stop_orders.c.attempt_id, stop_orders.c.grace, stop_orders.c.signature)
    return await one.database.read(lambda connection: list(connection.execute(query)))


async def test_a_stop_is_signed_with_all_it_names_and_so_is_a_shorter_grace(serve: Serve) -> None:
    async with serve() as one:
        node = await one.node("a", Behaviour(hold=True))
        async with node.connected():
            run = await living(one, node)
            (word,) = [e for e in node.received if isinstance(e, messages.StopsSigned)]
            assert word.signed.key == one.signer.key_id
            (held,) = node.spool.values()
            held.stopped = asyncio.Event()  # its task minds no TERM
            for grace in (30.0, 0.5, 60.0, None):
                await one.stop(run, grace)
            await node.wait(lambda: len(stops_heard(node)) == 2)
            first, second = stops_heard(node)
            assert (first.grace, second.grace) == (30.0, 0.5)
            for wanted in (first, second):
                assert wanted.stop is not None
                signed, envelope = wanted.stop, wanted.stop.envelope
                assert verifies(one.signer.public_key, stop_bytes(envelope), signed.signature)
                assert (envelope.cluster, envelope.run) == (one.cluster_id, run)
                assert (envelope.node, envelope.attempt) == (node.identity.node, wanted.attempt)
                assert (envelope.epoch, signed.key) == (wanted.epoch, one.signer.key_id)
            node.release(held.attempt)
            await one.wait_run(run)
            assert await stored(one) == []  # nothing is left of it to tell
            assert node.refused == []


async def test_an_older_agent_is_stopped_as_before(serve: Serve) -> None:
    async with serve() as one:
        older = tuple(feature for feature in FEATURES if feature != SIGNED_STOPS)
        node = await one.node("a", Behaviour(hold=True, features=older))
        async with node.connected():
            run = await living(one, node)
            await one.stop(run)
            await one.wait_run(run)
            assert [wanted.stop for wanted in stops_heard(node)] == [None]
            assert not [e for e in node.received if isinstance(e, messages.StopsSigned)]


@pytest.mark.parametrize("again", [False, True], ids=["a link that stands", "a new link"])
async def test_a_gateway_tells_no_stop_before_it_is_signed(serve: Serve, again: bool) -> None:
    """As where the role that signs is another process, and away for a while."""
    async with serve(loops=False) as one:
        one.database.react(one.dispatch.react, one.gateway.react)
        node = await one.node("a", Behaviour(hold=True))
        async with node.connected():
            run = await living(one, node)
            await one.stop(run, 1.5)
            link = one.gateway.links.get(node.identity.node)
            if not again:
                await one.wait(_now(link.sweep), bool)  # it goes on asking
                assert stops_heard(node) == []
                await one.stops.round()
                await one.wait_run(run)
        if again:
            async with node.connected():
                await node.wait(lambda: len(node.received) > 3)
                assert stops_heard(node) == []
                attempt = next(iter(node.spool))
                told = [e for e in node.received if isinstance(e, Desired)][-1]
                assert [(w.attempt, w.wish) for w in told.attempts] == [(attempt, "run")]
                await one.stops.round()
                await node.wait(lambda: stops_heard(node))
        assert [wanted.grace for wanted in stops_heard(node)] == [1.5]


def _now(look: Callable[[], object]) -> Callable[[], Any]:
    async def looked() -> object:
        return look()

    return looked


async def test_what_runs_under_an_older_epoch_is_stopped_by_a_signed_order(serve: Serve) -> None:
    async with serve() as one:
        node = await one.node("a", Behaviour(hold=True))
        async with node.connected():
            run = await living(one, node)
            ((attempt, epoch),) = node.starts
            # Its assignment was given anew, as after a refusal that came too late.
            await one.database.write(
                lambda tx: tx.connection.execute(
                    update(attempts).values(epoch=epoch + 1, state="assigned", offered=True)
                )
            )
            said = Observation(attempt, epoch, (Started(1),))
            node._talk().send_observed(_observed(node, said))
            node._wake.set()
            await node.wait(lambda: stops_heard(node))
            wanted = stops_heard(node)[0]
            assert (wanted.attempt, wanted.epoch) == (attempt, epoch)
            assert isinstance(wanted.stop, StopOrder)
            assert wanted.stop.envelope.epoch == epoch
            assert node.refused == []
            link = one.gateway.links.get(node.identity.node)
            await one.wait(_now(lambda: not link.asks().fenced), bool)
            assert (await one.run(run)).state != "ended"


def _observed(node: FakeNode, said: Observation) -> Any:
    from fleetwire.core.desired import Observed  # noqa: PLC0415 - beside its only use

    return Observed(node.revision, (said,))


async def test_a_new_key_signs_the_stops_that_wait(serve: Serve, tmp_path: Path) -> None:
    async with serve(loops=False) as one:
        node = await one.node("a", Behaviour(hold=True))
        one.database.react(one.dispatch.react, one.gateway.react)
        async with node.connected():
            run = await living(one, node)
        await one.stop(run)
        await one.stops.round()
        folder = tmp_path / "new"
        folder.mkdir()
        new = Signer.open(folder)
        again = partial(domain.sign_again, key=new.key_id)
        assert await one.database.write(again) == 1
        signing = StopSigning(one.cluster_id, new.key_id, new.sign)
        await one.database.write(partial(domain.sign, signing=signing))
        attempt = next(iter(node.spool))
        found = await one.database.read(lambda connection: rows.signed(connection, [attempt]))
        ((_, stop),) = found.items()
        assert stop.order.key == new.key_id
        assert verifies(new.public_key, stop_bytes(stop.order.envelope), stop.order.signature)


async def test_a_refused_stop_is_an_alarm_told_once(serve: Serve) -> None:
    async with serve() as one:
        node, other = await one.node("a", Behaviour(hold=True)), await one.node("b")
        async with node.connected(), other.connected():
            run = await living(one, node)
            ((attempt, epoch),) = node.starts
            refused = messages.StopRefused(attempt, epoch, 1, "the stop is not signed")
            for speaker in (other, node, node):
                speaker._talk().send_refusal(refused)
                speaker._wake.set()
            line = f"ALARM: the node refused to stop it (epoch {epoch}): the stop is not signed"

            async def told() -> list[str]:
                return [text for text in await one.story(run) if "ALARM" in text]

            await one.wait(told, bool)
            await one.stop(run)
            await one.wait_run(run)
            assert await told() == [line]


async def test_what_is_told_again_uses_up_nothing_of_the_days_budget(serve: Serve) -> None:
    async with serve() as one:
        node = await one.node("a", Behaviour(hold=True))
        async with node.connected():
            run = await living(one, node)
            ((attempt, epoch),) = node.starts
            alarms = one.gateway._rooms.alarms
            alarms._refusals = Sparing(2, within_s=60.0, most_of_all=100)
            for why in (*["not signed"] * 5, "expired"):
                refused = messages.StopRefused(attempt, epoch, 1, why)
                work = alarms.refused(node.identity.node, refused)
                assert work is not None
                await work
            assert alarms.refused(node.identity.node, refused) is None
            told = [text for text in await one.story(run) if "ALARM" in text]
            assert {text.rpartition(": ")[2] for text in told} == {"not signed", "expired"}
            assert len(told) == 2
            await one.stop(run)
            await one.wait_run(run)


async def test_a_stop_that_nobody_hears_any_more_goes_with_its_run(serve: Serve) -> None:
    async with serve() as one:
        node = await one.node("a", Behaviour(hold=True))
        async with node.connected():
            run = await living(one, node, lost_after=0.0)
        await one.stop(run)
        assert len(await stored(one)) == 1
        one.clock.ahead_s += 30 * 86400
        await one.wait_run(run, lambda view: view.outcome == "lost", 20)
        assert len(await stored(one)) == 1  # it may still run, wherever its node is
        one.clock.ahead_s += 400 * 86400
        from fleetwire.core.retention import Keep  # noqa: PLC0415 - beside its only use

        loop = RetentionLoop(one.database, one.logs, Keep(), clock=one.clock.wall)

        async def left() -> list[Any]:
            await loop.round()
            return await stored(one)

        await one.wait(left, lambda found: not found)


def test_a_server_that_is_killed_between_the_wish_and_the_word_stops_all_the_same(
    tmp_path: Path,
) -> None:
    """kill -9 once the wish is acknowledged, and the node has read nothing of it (P8, P13)."""
    with Lab(tmp_path) as lab:
        server = lab.start_server()
        agent = lab.start_agent()
        run = lab.submit("trap '' TERM; echo up; while :; do sleep 0.1; done").id
        wait_until(lambda: lab.client.run(run).state == "running", "the run")
        os.kill(agent.pid, signal.SIGSTOP)
        lab.client.stop_run(run, grace=0.2)
        server.kill()
        lab.start_server()
        os.kill(agent.pid, signal.SIGCONT)
        wait_until(lambda: lab.client.run(run).state == "ended", "the stop")
        assert lab.client.run(run).outcome == "canceled"
        known = json.loads((lab.state("node-1") / "identity.json").read_text())
        assert known["signs_stops"] is True
