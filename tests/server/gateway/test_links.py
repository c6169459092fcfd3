"""Links of real sockets: what nodes say, what they are told, and what is made of it."""

from __future__ import annotations

import asyncio
import hashlib
import secrets

import pytest
from nacl.signing import SigningKey

from fleetwire.core import chunks, limits
from fleetwire.core.chunks import Piece
from fleetwire.core.desired import Desired, Observation, Observed
from fleetwire.core.envelopes import objection, order_bytes
from fleetwire.core.happenings import Exited, Started
from fleetwire.core.leases import generation_of
from fleetwire.core.specs import Script, Step
from fleetwire.protocol import codec, messages
from fleetwire.server.api import http
from fleetwire.server.domain import nodes, views
from fleetwire.server.gateway import endpoint
from fleetwire.server.gateway.link import Link
from fleetwire.server.logs.chunks import compress
from fleetwire.server.store import meta
from fleetwire.testing.fake_node import Behaviour, FakeNode
from fleetwire.testing.heart import Heart, Serve, now_us


def only(run: views.RunView) -> views.TaskView:
    assert run.tasks is not None
    (task,) = run.tasks
    return task


def has_orders(node: FakeNode) -> bool:
    return any(isinstance(event, Desired) and event.attempts for event in node.received)


async def doubts(one: Heart) -> dict[str, str]:
    """Return the nodes that were asked once more for what they did not mention."""
    return await one.database.read(lambda c: meta.beginning_with(c, "doubt:"))


async def log_of(one: Heart, task: views.TaskView) -> bytes:
    view = await one.database.read(lambda c: views.get_attempt(c, task.attempt))
    found = b""
    while chunks := await one.logs.read(view.segment, view.attempt, len(found), 1 << 30):
        found += b"".join(chunk.data for chunk in chunks)
    return found


async def admin_of(one: Heart, name: str) -> str:
    return (await one.node_named(name)).admin


async def test_a_run_goes_all_the_way(serve: Serve) -> None:
    async with serve() as one:
        node = await one.node("a")
        async with node.connected():
            run_id = await one.submit(
                Step("print", text="out"), Step("print", text="err", stream=2), Step("exit", code=3)
            )
            run = await one.wait_run(run_id)
            task = only(run)
            assert (run.state, run.outcome, task.exit_code) == ("ended", "failed", 3)
            assert task.log.complete
            assert await log_of(one, task) == b"out\nerr\n"
            assert task.log.sha256 == hashlib.sha256(b"out\nerr\n").hexdigest()
            await node.wait(lambda: not node.spool)  # it was told that all is sealed
            assert len(node.starts) == 1
        story = await one.story(run_id)
        assert story[0] == "failed"
        assert "started" in story
        assert story[-1] == "submitted"


async def test_an_order_is_signed_for_this_start_and_no_other(serve: Serve) -> None:
    async with serve() as one:
        node = await one.node("a")
        async with node.connected():
            await one.wait_run(await one.submit())
        (wanted,) = [
            wanted
            for event in node.received
            if isinstance(event, Desired)
            for wanted in event.attempts
            if wanted.order
        ]
        order = wanted.order
        SigningKey(bytes(one.signer._key)).verify_key.verify(
            order_bytes(order.envelope), order.signature
        )
        assert order.key == one.signer.key_id
        here = {
            "cluster": one.cluster_id,
            "node": node.identity.node,
            "attempt": wanted.attempt,
            "epoch": wanted.epoch,
            "now": now_us(),
        }
        assert objection(order.envelope, order.spec, **here) is None
        assert objection(order.envelope, order.spec, **{**here, "epoch": 1}) is not None


async def test_everything_works_without_any_nudge(serve: Serve) -> None:
    async with serve(drop_nudges=True) as one:
        node = await one.node("a", Behaviour(hold=True))
        async with node.connected():
            run_id = await one.submit()
            await one.wait_run(run_id, lambda run: run.state == "running", 15)
            await one.stop(run_id)
            run = await one.wait_run(run_id, timeout=15)
            assert run.outcome == "canceled"


async def test_a_large_log_flows_within_the_credit(serve: Serve) -> None:
    async with serve() as one:
        node = await one.node("a", Behaviour(chunk=300_000))
        async with node.connected():
            size = 12_000_000
            run_id = await one.submit(Step("bytes", size=size))
            task = only(await one.wait_run(run_id, timeout=30))
            assert task.log.length == size
            assert task.log.complete
            assert await log_of(one, task) == bytes(n & 0xFF for n in range(size))
            durable = [e.length for e in node.received if isinstance(e, messages.Durable)]
            assert durable == sorted(durable)
            assert len(durable) >= size // 300_000


async def test_a_node_that_cannot_compress(serve: Serve) -> None:
    async with serve() as one:
        node = await one.node("a", Behaviour(chunk=300_000, features=("from-the-future",)))
        async with node.connected():
            size = 2_000_000
            task = only(await one.wait_run(await one.submit(Step("bytes", size=size))))
            assert task.log.complete
            assert await log_of(one, task) == bytes(n & 0xFF for n in range(size))
            assert (
                task.log.sha256 == hashlib.sha256(bytes(n & 0xFF for n in range(size))).hexdigest()
            )


async def test_a_stop_reaches_a_running_attempt_and_one_that_has_not_started(serve: Serve) -> None:
    async with serve() as one:
        node = await one.node("a", Behaviour(hold=True))
        mute = await one.node("mute", Behaviour(silent=True))
        async with node.connected(), mute.connected():
            run_id = await one.submit(nodes=("a",))
            never = await one.submit(nodes=("mute",))
            await one.wait_run(run_id, lambda run: run.state == "running")
            await one.wait_run(never, lambda run: only(run).state == "assigned")
            await mute.wait(lambda: has_orders(mute))
            await one.stop(run_id, 3.0)
            await one.stop(never)
            run = await one.wait_run(run_id)
            assert run.outcome == "canceled"
            assert only(run).signal == 15
            run = await one.wait_run(never)
            assert (run.outcome, only(run).state) == ("canceled", "canceled")
            graces = [
                wanted.grace
                for event in node.received
                if isinstance(event, Desired)
                for wanted in event.attempts
                if wanted.wish == "stop"
            ]
            assert graces == [3.0]


async def test_capacity_makes_the_second_wait_and_why_says_so(serve: Serve) -> None:
    async with serve() as one:
        node = await one.node("small", Behaviour(hold=True), capacity=1)
        async with node.connected():
            first = await one.submit()
            await one.wait_run(first, lambda run: run.state == "running")
            second = await one.submit()
            await one.wait(
                lambda: one.story(second),
                lambda story: "waits: node small is at capacity (1 of 1 running)" in story,
            )
            (attempt,) = node.spool
            node.release(attempt)
            await one.wait_run(first)
            await one.wait_run(second, lambda run: run.state == "running")


async def test_any_takes_different_nodes(serve: Serve) -> None:
    async with serve() as one:
        fakes = [await one.node(name) for name in "abc"]
        async with fakes[0].connected(), fakes[1].connected(), fakes[2].connected():
            run = await one.wait_run(await one.submit(any=2))
            names = {task.node for task in run.tasks or ()}
            assert len(names) == 2
            assert names < {"a", "b", "c"}


async def test_declined_goes_back_and_final_is_refused(serve: Serve) -> None:
    async with serve() as one:
        shy = await one.node("shy", Behaviour(decline="no disk left"))
        never = await one.node("never", Behaviour(decline="no such shell", decline_final=True))
        async with shy.connected(), never.connected():
            run_id = await one.submit(nodes=("shy",))
            await one.wait(
                lambda: one.story(run_id),
                lambda story: "waits again: no disk left" in story,
            )
            shy.behaviour = Behaviour()
            run = await one.wait_run(run_id)
            assert run.outcome == "succeeded"
            epochs = [
                wanted.epoch
                for event in shy.received
                if isinstance(event, Desired)
                for wanted in event.attempts
                if wanted.order
            ]
            assert epochs == sorted(set(epochs))
            run = await one.wait_run(await one.submit(nodes=("never",)))
            assert (run.outcome, only(run).reason) == ("refused", "no such shell")
            await never.wait(lambda: not never.spool)


async def test_drained_is_shown_only_when_confirmed_and_idle(serve: Serve) -> None:
    async with serve() as one:
        node = await one.node("a", Behaviour(hold=True))
        async with node.connected():
            run_id = await one.submit()
            await one.wait_run(run_id, lambda run: run.state == "running")
            await one.database.write(lambda tx: nodes.set_admin(tx, node.identity.node, "draining"))
            await node.wait(lambda: node.admin == "draining")
            waiting = await one.submit()
            await one.wait(lambda: one.story(waiting), lambda s: "waits: node a is draining" in s)
            await one.leases.round()
            assert await admin_of(one, "a") == "draining"
            node.release(next(iter(node.spool)))
            await one.wait_run(run_id)
            await one.wait(lambda: admin_of(one, "a"), lambda admin: admin == "drained")
        await one.database.write(lambda tx: nodes.set_admin(tx, node.identity.node, "active"))
        node.behaviour = Behaviour()
        async with node.connected():
            await one.wait_run(waiting)
            assert node.admin == "active"
            assert len(node.starts) == 2


async def test_a_node_that_was_drained_while_away_hears_of_it(serve: Serve) -> None:
    async with serve() as one:
        node = await one.node("a")
        await one.database.write(lambda tx: nodes.set_admin(tx, node.identity.node, "draining"))
        await one.leases.round()
        assert await admin_of(one, "a") == "draining"
        async with node.connected():
            await one.wait(lambda: admin_of(one, "a"), lambda admin: admin == "drained")


async def test_a_hash_that_does_not_fit_is_fetched_once_more(serve: Serve) -> None:
    async with serve() as one:
        node = await one.node("a", Behaviour(hold=True))
        async with node.connected():
            run_id = await one.submit(Step("print", text="right"))
            await one.wait_run(run_id, lambda run: run.state == "running")
            (held,) = node.spool.values()
            await node.wait(lambda: any(isinstance(e, messages.Durable) for e in node.received))
            held.log[:] = b"RIGHT\n"  # the disk of the node has changed its mind
            node.release(held.attempt)
            task = only(await one.wait_run(run_id))
            assert await log_of(one, task) == b"RIGHT\n"
            assert task.log.state == "sealed"
            resends = [e for e in node.received if isinstance(e, messages.Resend)]
            assert [e.length for e in resends] == [0]


async def test_what_does_not_fit_twice_is_damaged_and_both_hashes_are_kept(serve: Serve) -> None:
    async with serve() as one:
        node = await one.node("a", Behaviour(hold=True))
        async with node.connected():
            run_id = await one.submit(Step("print", text="right"))
            await one.wait_run(run_id, lambda run: run.state == "running")
            (held,) = node.spool.values()
            wrong = hashlib.sha256(b"wrong").hexdigest()
            said = Exited(now_us(), "exited", 0, None, 1, 0.1, len(held.log), wrong)
            held.happenings.append(said)
            node.report(Observed(0, (held.observation(),)))
            run = await one.wait_run(run_id)
            assert only(run).log.state == "damaged"
            assert only(run).log.sha256 == hashlib.sha256(b"right\n").hexdigest()
            assert any(wrong in line for line in await one.story(run_id))
            await node.wait(lambda: not node.spool)


async def test_a_gap_is_asked_for_again(serve: Serve) -> None:
    async with serve() as one:
        node = await one.node("a", Behaviour(hold=True))
        async with node.connected():
            run_id = await one.submit(Step("print", text="0123456789"))
            await one.wait_run(run_id, lambda run: run.state == "running")
            (held,) = node.spool.values()
            await node.wait(lambda: any(isinstance(e, messages.Durable) for e in node.received))
            held.log += b"lost on the way, and this is not"
            node._talk().credit.sent(held.attempt, 20)  # these bytes never went out
            node.release(held.attempt)
            task = only(await one.wait_run(run_id))
            assert await log_of(one, task) == b"0123456789\nlost on the way, and this is not"
            assert any(isinstance(e, messages.Resend) for e in node.received)


async def test_reports_and_bytes_of_another_nodes_attempt_are_unknown(serve: Serve) -> None:
    async with serve() as one:
        honest = await one.node("honest", Behaviour(hold=True))
        hostile = await one.node("hostile")
        async with honest.connected(), hostile.connected():
            run_id = await one.submit(nodes=("honest",))
            await one.wait_run(run_id, lambda run: run.state == "running")
            (held,) = honest.spool.values()
            before = await one.run(run_id)
            lie = Exited(1, "exited", 0, None, 1, 0.1, 0, hashlib.sha256(b"").hexdigest())
            hostile.report(Observed(0, (Observation(held.attempt, held.epoch, (lie,)),)))
            await hostile.wait(lambda: hostile.unknown == [held.attempt])
            hostile._talk().credit.rewind(held.attempt, 0)
            hostile.spool[held.attempt] = type(held)(held.attempt, held.epoch)
            hostile.spool[held.attempt].write(b"forged", 1, 1)
            hostile._wake.set()
            await hostile.wait(lambda: len(hostile.unknown) == 2)
            assert await one.run(run_id) == before
            honest.release(held.attempt)
            assert await log_of(one, only(await one.wait_run(run_id))) == b"hello\n"


@pytest.mark.parametrize("is_stored", [False, True])
async def test_who_declined_writes_nothing_into_the_log_of_who_runs_it(
    serve: Serve, is_stored: bool
) -> None:
    async with serve() as one:
        hostile = await one.node("hostile", Behaviour(decline="not now"))
        async with hostile.connected():
            run_id = await one.submit(Step("print", text="the truth"), any=1)
            await one.wait(lambda: one.story(run_id), lambda story: "waits again: not now" in story)
            attempt = only(await one.run(run_id)).attempt
            lie = b"a big lie\n"  # as long as the truth
            body = chunks.encode([Piece(1, len(lie), now_us())], [lie])
            if is_stored:  # as if it had been on its way when the attempt went elsewhere
                segment = one.logs.segment_now()
                node, epoch = hostile.identity.node, 1 << 40
                await one.logs.append(node, epoch, segment, attempt, 0, compress(body))
            else:
                await hostile.raw(codec.encode_log(attempt, 0, len(body), body, zstd=False))
                await hostile.wait(lambda: hostile.unknown == [attempt])
            await one.database.write(
                lambda tx: nodes.set_admin(tx, hostile.identity.node, "draining")
            )
            honest = await one.node("honest")
            async with honest.connected():
                task = only(await one.wait_run(run_id))
                assert await log_of(one, task) == b"the truth\n"
                assert (task.node, task.log.state) == ("honest", "sealed")
                assert task.log.sha256 == hashlib.sha256(b"the truth\n").hexdigest()


async def test_the_newest_link_wins_and_the_older_is_closed(serve: Serve) -> None:
    async with serve() as one:
        older = await one.node("a", Behaviour(hold=True))
        newer = one.fake(older.identity, Behaviour(hold=True))
        async with older.connected():
            run_id = await one.submit()
            await one.wait_run(run_id, lambda run: run.state == "running")
            newer.spool = dict(older.spool)
            async with newer.connected():
                await older.wait(lambda: older.closed is not None)
                assert older.closed is not None
                assert older.closed[0] == messages.CLOSE_NEWER_LINK
                for attempt in newer.spool.values():
                    newer._end(attempt, now_us(), 0)
                assert (await one.wait_run(run_id)).outcome == "succeeded"


async def test_a_restarted_server_goes_on_where_it_was(serve: Serve) -> None:
    node: FakeNode
    async with serve() as one:
        node = await one.node("a", Behaviour(hold=True))
        async with node.connected():
            run_id = await one.submit(Step("print", text="before"))
            await one.wait_run(run_id, lambda run: run.state == "running")
            await node.wait(lambda: any(isinstance(e, messages.Durable) for e in node.received))
        (held,) = node.spool.values()
        held.write(b"between\n", 1, 1)
    async with serve() as one:
        again = one.fake(node.identity)
        again.spool = node.spool
        again.starts = node.starts
        async with again.connected():
            held.write(b"after\n", 1, 1)
            again._end(held, now_us(), 0)
            task = only(await one.wait_run(run_id))
            assert await log_of(one, task) == b"before\nbetween\nafter\n"
            assert task.log.complete
            assert len(again.starts) == 1
            have = [
                wanted.have
                for event in again.received
                if isinstance(event, Desired)
                for wanted in event.attempts
            ]
            assert have == [len(b"before\n")]


async def test_what_is_told_again_changes_nothing(serve: Serve) -> None:
    async with serve() as one:
        node = await one.node("a", Behaviour(hold=True))
        async with node.connected():
            run_id = await one.submit()
            await one.wait_run(run_id, lambda run: run.state == "running")
            (held,) = node.spool.values()
            node.release(held.attempt)
            await one.wait_run(run_id)
            await node.wait(lambda: not node.spool)
            before = (await one.run(run_id), await one.story(run_id))
            other = Exited(1, "exited", 9, None, 1, 0.1, 0, "0" * 64)
            for happenings in (tuple(held.happenings), (Started(5),), (other,)):
                node.received.clear()
                node.report(Observed(0, (Observation(held.attempt, held.epoch, happenings),)))
                # It is told each time that all is sealed, so that it can let go.
                await node.wait(lambda: any(isinstance(e, messages.Sealed) for e in node.received))
            assert (await one.run(run_id), await one.story(run_id)) == before


async def test_a_late_report_of_an_old_epoch_is_evidence_only(serve: Serve) -> None:
    async with serve() as one:
        node = await one.node("a", Behaviour(decline="not now"))
        async with node.connected():
            run_id = await one.submit()
            await one.wait(lambda: one.story(run_id), lambda s: "waits again: not now" in s)
            node.behaviour = Behaviour(hold=True)
            await one.wait_run(run_id, lambda run: run.state == "running")
            (held,) = node.spool.values()
            old = min(
                wanted.epoch
                for event in node.received
                if isinstance(event, Desired)
                for wanted in event.attempts
            )
            said = Exited(1, "exited", 0, None, 1, 0.1, 0, hashlib.sha256(b"").hexdigest())
            for _ in range(2):
                node.report(Observed(0, (Observation(held.attempt, old, (said,)),)))
            evidence = f"kept as evidence: ended with exit code 0 after 0.100 s, of epoch {old}"
            await one.wait(lambda: one.story(run_id), lambda s: evidence in s)
            node.release(held.attempt)
            await one.wait_run(run_id)
            assert (await one.story(run_id)).count(evidence) == 1
            assert len(node.starts) == 1


async def test_a_new_incarnation_has_lost_what_the_old_one_had(serve: Serve) -> None:
    async with serve() as one:
        node = await one.node("a", Behaviour(hold=True))
        async with node.connected():
            run_id = await one.submit()
            await one.wait_run(run_id, lambda run: run.state == "running")
            await node.wait(lambda: any(isinstance(e, messages.Durable) for e in node.received))
        wiped = one.fake(node.identity._replace(incarnation=secrets.token_hex(16)))
        async with wiped.connected():
            run = await one.wait_run(run_id)
            assert run.outcome == "lost"
            assert "spool gone" in str(only(run).reason)
            assert only(run).log.state == "missing"
            assert only(run).log.length == len(b"hello\n")
            assert not wiped.starts


async def test_what_a_complete_report_does_not_mention_is_lost(serve: Serve) -> None:
    async with serve() as one:
        node = await one.node("a", Behaviour(hold=True))
        mute = await one.node("mute", Behaviour(silent=True))
        async with node.connected(), mute.connected():
            run_id = await one.submit(nodes=("a",))
            unstarted = await one.submit(nodes=("mute",))
            await one.wait_run(run_id, lambda run: run.state == "running")
            await mute.wait(lambda: has_orders(mute))
        node.spool.clear()
        mute.behaviour = Behaviour()
        async with node.connected(), mute.connected():
            # It is asked for once more, and has time to answer.
            await one.wait(lambda: doubts(one), bool)
            one.clock.ahead_s += 11
            assert (await one.wait_run(run_id)).outcome == "lost"
            # Its order was told, but it never said that it started: it is told again.
            assert (await one.wait_run(unstarted)).outcome == "succeeded"


async def test_a_generation_ahead_of_ours_raises_ours(serve: Serve) -> None:
    async with serve() as one:
        node = await one.node("a")
        async with node.connected():
            await one.wait_run(await one.submit())
        node.generation = 41
        async with node.connected():
            await one.wait_run(await one.submit())
            assert [generation_of(epoch) for _, epoch in node.starts] == [1, 42]


@pytest.mark.limit("inventory_bytes")
async def test_beats_and_inventory(serve: Serve) -> None:
    async with serve() as one:
        node = await one.node("a")
        async with node.connected():
            node.heartbeat(7)
            await node.wait(lambda: node.beats == 1)
            largest = {"kernel": "x" * (limits.INVENTORY_BYTES - len('{"kernel":""}'))}
            node.inventory(largest)
            await one.wait(
                lambda: one.node_named("a"),
                lambda view: view.inventory == largest,
            )
            node.inventory({"kernel": largest["kernel"] + "x"})
            await node.wait(lambda: node.closed is not None)
            assert node.closed is not None
            assert node.closed[0] == messages.CLOSE_TOO_LARGE


@pytest.mark.slow
async def test_many_nodes_at_once(serve: Serve) -> None:
    async with serve() as one:
        fakes = [await one.node(f"n{number}") for number in range(20)]
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(fake.run_once()) for fake in fakes]
            for fake in fakes:
                await fake.wait(fake.opened.is_set)
            made = [await one.submit() for _ in range(10)]
            for run_id in made:
                run = await one.wait_run(run_id, timeout=30)
                assert run.counts["succeeded"] == 20
            for task in running:
                task.cancel()
        assert all(len(set(fake.starts)) == len(fake.starts) == 10 for fake in fakes)


async def test_a_node_that_reads_nothing_loses_its_link_and_its_connection(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "CLOSE_WITHIN_S", 0.1)
    monkeypatch.setattr(http, "CLOSE_WITHIN_S", 0.1)
    async with serve() as one:
        node = await one.node("deaf", capacity=1000)
        links = one.gateway.links

        async def writes_since() -> float | None:
            assert isinstance(link, Link)
            return link._writes_since

        async def link_now() -> object:
            return links.get(node.identity.node)

        async with node.connected():
            assert node._socket is not None
            transport = node._socket.transport
            transport.pause_reading()
            link = links.get(node.identity.node)
            assert link is not None
            for _ in range(80):  # more than the kernel's buffers hold
                await one.submit(spec=Script("x" * 250_000))
            await one.wait(writes_since, lambda since: since is not None)
            link.sweep()
            assert await link_now() is link  # it has time yet
            one.clock.ahead_s += 31
            link.sweep()
            await one.wait(link_now, lambda now: now is None)
            transport.resume_reading()
            await node.wait(lambda: node.closed is not None)
        # Told so if it reads again in time, else cut off.
        assert node.closed is not None
        assert node.closed[0] in {1006, messages.CLOSE_TOO_SLOW}
