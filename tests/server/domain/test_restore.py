"""A record that is older than its nodes, through the use cases (P26)."""

from __future__ import annotations

from functools import partial

import msgspec
import pytest
from sqlalchemy import text

from fleetwire.core.desired import Observation
from fleetwire.core.happenings import Declined, Exited, Lost, Started
from fleetwire.core.leases import next_epoch
from fleetwire.core.restore import LOST_IN_DOUBT
from fleetwire.server.domain import attempts, cluster, desired, nodes, restore
from fleetwire.server.domain.attempts import Answer, NodeReport, Stored
from fleetwire.server.domain.changes import EMPTY_SHA256
from fleetwire.server.domain.desired import Asked, Level
from fleetwire.server.domain.nodes import Greeting
from fleetwire.testing.fake_node import Identity
from fleetwire.testing.heart import Heart, Serve, now_us

EXITED = Exited(5, "exited", 3, None, 1, 0.5, 0, EMPTY_SHA256)
FOREIGN = next_epoch(1, 4711)  # of a generation before, never given by this record


async def greet(one: Heart, identity: Identity, generation: int = 0) -> int:
    greeting = Greeting(identity.incarnation, "boot", "1", generation, now_us(), None)
    accepted = await one.database.write(
        partial(nodes.accept_hello, node=identity.node, greeting=greeting)
    )
    return accepted.link_epoch


async def level(one: Heart, identity: Identity, link: int, *, full: bool = False) -> Level:
    await one.dispatch.round()
    asked = {identity.node: Asked(link, full=full)}
    levels = await one.database.write(partial(desired.desired, asked=asked, key="k"))
    return levels[identity.node]


async def say(
    one: Heart, identity: Identity, link: int, *said: Observation, complete: bool = False
) -> Answer:
    mentioned = frozenset((o.attempt, o.epoch) for o in said) if complete else None
    report = NodeReport(
        node=identity.node,
        link_epoch=link,
        observed=said,
        mentioned=mentioned,
        logs={o.attempt: Stored(0, None) for o in said},
    )
    (answer,) = await one.database.write(partial(attempts.report, reports=[report]))
    return answer


async def test_what_waits_is_held_until_its_node_has_spoken(serve: Serve) -> None:
    async with serve(loops=False) as one:
        a, b = [await one.identity(name) for name in "ab"]
        bound = await one.submit(nodes=(a.node,))
        free = await one.submit(any=1)
        await one.database.write(restore.begin_doubt)
        one.clock.ahead_s += 1
        after = await one.submit(nodes=(a.node,))
        link = await greet(one, a)
        wanted = (await level(one, a, link, full=True)).wanted
        assert [w.attempt for w in wanted] == [(await one.run(after)).tasks[0].attempt]  # type: ignore[index]  # it has
        assert any("held until a has said" in line for line in await one.story(bound))
        assert any("held until a, b has said" in line for line in await one.story(free))
        answer = await say(one, a, link, complete=True)
        assert {one_.attempt for one_ in answer.asked} == {
            (await one.run(run)).tasks[0].attempt
            for run in (bound, free)  # type: ignore[index]  # it has
        }
        # It has nothing to say of them: the one is settled, the other waits for b as well.
        one.clock.ahead_s += 11
        await one.leases.round()
        assert (await one.run(bound)).outcome == "lost"
        assert (await one.run(free)).state == "pending"
        await one.sealing.round()
        link = await greet(one, b)
        await say(one, b, link, complete=True)
        one.clock.ahead_s += 11
        await one.leases.round()
        assert (await one.run(free)).outcome == "lost"
        assert await one.database.read(restore.standing) is None


async def test_what_began_since_the_backup_is_adopted_with_its_end(serve: Serve) -> None:
    async with serve(loops=False) as one:
        a = await one.identity("a")
        run_id = await one.submit(any=1)
        (task,) = (await one.run(run_id)).tasks or ()
        await one.database.write(restore.begin_doubt)
        link = await greet(one, a)
        answer = await say(
            one, a, link, Observation(task.attempt, FOREIGN, (Started(1),)), complete=True
        )
        assert [one_.attempt for one_ in answer.adopted] == [task.attempt]
        assert (await one.run(run_id)).counts["running"] == 1
        await say(one, a, link, Observation(task.attempt, FOREIGN, (Started(1), EXITED)))
        run = await one.run(run_id)
        assert (run.outcome, run.sealed) == ("failed", True)
        assert any("given after the backup" in line for line in await one.story(run_id))


async def test_an_order_given_again_is_refused_and_the_first_start_counts(serve: Serve) -> None:
    """Restored without a word to us: the node refuses, and what it began is the truth."""
    async with serve(loops=False) as one:
        a = await one.identity("a")
        link = await greet(one, a)
        await one.database.write(partial(cluster.raise_generation, seen_by_node=5))
        run_id = await one.submit(nodes=(a.node,))
        (wanted,) = (await level(one, a, link)).wanted
        assert wanted.order is not None
        began = Observation(wanted.attempt, FOREIGN, (Started(1), EXITED))
        declined = Observation(
            wanted.attempt, wanted.epoch, (Declined(2, "it already started here", final=True),)
        )
        answer = await say(one, a, link, began, declined)
        assert answer.void == ()  # its folder is not to go
        assert (await one.run(run_id)).outcome == "failed"
        assert answer.sealed == (wanted.attempt,)


async def test_a_node_cannot_claim_what_is_not_its_own(serve: Serve) -> None:
    async with serve(loops=False) as one:
        a, b = [await one.identity(name) for name in "ab"]
        run_id = await one.submit(nodes=(b.node,))
        (task,) = (await one.run(run_id)).tasks or ()
        link = await greet(one, a)
        claim = Observation(task.attempt, FOREIGN, (Started(1), EXITED))
        assert (await say(one, a, link, claim)).unknown == (task.attempt,)
        ours = await one.database.write(cluster.generation)
        claim = msgspec.structs.replace(claim, epoch=next_epoch(ours, 4711))
        link = await greet(one, b)
        assert (await say(one, b, link, claim)).unknown == (task.attempt,)
        assert (await one.run(run_id)).state == "pending"


async def test_a_node_that_was_deleted_is_not_waited_for(serve: Serve) -> None:
    async with serve(loops=False) as one:
        a = await one.identity("a")
        run_id = await one.submit(nodes=(a.node,))
        await one.database.write(restore.begin_doubt)
        await one.database.write(lambda tx: nodes_gone(tx.connection))
        await one.leases.round()
        assert (await one.run(run_id)).outcome == "lost"
        assert await one.database.read(restore.standing) is None


def nodes_gone(connection: object) -> None:
    connection.execute(text("DELETE FROM nodes"))  # type: ignore[attr-defined]  # a connection


async def test_a_node_ahead_of_us_begins_the_doubt(serve: Serve) -> None:
    async with serve(loops=False) as one:
        a = await one.identity("a")
        await one.submit(nodes=(a.node,))
        ours = await one.database.write(cluster.generation)
        await greet(one, a, generation=ours + 5)
        assert await one.database.write(cluster.generation) > ours + 5
        doubt = await one.database.read(restore.standing)
        assert doubt is not None
        assert list(doubt.nodes.values()) == ["a"]


async def test_what_had_begun_and_is_not_mentioned_is_asked_for_before_it_is_lost(
    serve: Serve,
) -> None:
    """It has ended since, and its folder is sealed: the node brings it when it is asked."""
    async with serve(loops=False) as one:
        a = await one.identity("a")
        link = await greet(one, a)
        runs = [await one.submit(nodes=(a.node,)) for _ in range(2)]
        epochs = {w.attempt: w.epoch for w in (await level(one, a, link)).wanted}
        for attempt, epoch in epochs.items():
            await say(one, a, link, Observation(attempt, epoch, (Started(1),)))
        await one.database.write(restore.begin_doubt)
        link = await greet(one, a)
        assert {w.attempt for w in (await level(one, a, link, full=True)).wanted} == set(epochs)
        await say(one, a, link, complete=True)
        first = (await one.run(runs[0])).tasks[0].attempt  # type: ignore[index]  # it has one
        await say(one, a, link, Observation(first, epochs[first], (Started(1), EXITED)))
        assert (await one.run(runs[0])).outcome == "failed"
        assert (await one.run(runs[1])).counts["running"] == 1
        one.clock.ahead_s += 11
        await one.leases.round()
        run = await one.run(runs[1])
        assert run.outcome == "lost"
        assert "spool gone" in str(run.tasks[0].reason)  # type: ignore[index]  # it has one


async def test_what_may_have_begun_does_not_expire(serve: Serve) -> None:
    """`expired` says that it never started, and nobody knows that yet: it has a day more."""
    async with serve(loops=False) as one:
        a = await one.identity("a")
        bound = await one.submit(nodes=(a.node,), queue_timeout=30.0)
        free = await one.submit(any=1, queue_timeout=30.0)
        one.clock.ahead_s += 60
        await one.database.write(restore.begin_doubt)
        await level(one, a, 0)
        await one.leases.round()
        for run_id in (bound, free):
            assert (await one.run(run_id)).state == "pending"
        link = await greet(one, a)
        (task,) = (await one.run(bound)).tasks or ()
        began = Observation(task.attempt, FOREIGN, (Started(1), EXITED))
        await say(one, a, link, began, complete=True)
        assert (await one.run(bound)).outcome == "failed"
        one.clock.ahead_s += 25 * 3600
        await one.leases.round()
        run = await one.run(free)
        assert (run.outcome, run.tasks[0].reason) == ("lost", LOST_IN_DOUBT)  # type: ignore[index]  # it has one


async def test_a_stop_of_what_may_have_begun_waits_for_its_node(serve: Serve) -> None:
    """`canceled` is shown when nothing of it lives (P13)."""
    async with serve(loops=False) as one:
        a = await one.identity("a")
        run_id = await one.submit(nodes=(a.node,))
        await one.database.write(restore.begin_doubt)
        await one.stop(run_id)
        assert (await one.run(run_id)).state == "pending"
        link = await greet(one, a)
        (task,) = (await one.run(run_id)).tasks or ()
        await say(one, a, link, Observation(task.attempt, FOREIGN, (Started(1),)), complete=True)
        (wanted,) = (await level(one, a, link)).wanted
        assert (wanted.attempt, wanted.wish, wanted.order) == (task.attempt, "stop", None)
        stopped = msgspec.structs.replace(EXITED, cause="stopped")
        await say(one, a, link, Observation(task.attempt, FOREIGN, (Started(1), stopped)))
        assert (await one.run(run_id)).outcome == "canceled"


async def test_a_record_of_the_future_is_not_put_back(serve: Serve) -> None:
    """What ran before the backup and what is new are told apart by the times of their ids."""
    async with serve(loops=False) as one:
        a = await one.identity("a")
        await one.submit(nodes=(a.node,))
        one.clock.ahead_s -= 3600
        with pytest.raises(restore.ClockBehind, match="clock shows: 3"):
            await one.database.write(restore.begin_doubt)


async def test_a_lost_attempt_s_log_with_a_hole_is_missing_and_not_sealed(serve: Serve) -> None:
    """Its node says no hash of it: that the length fits does not show that the bytes are there."""
    async with serve(loops=False) as one:
        a = await one.identity("a")
        run_id = await one.submit(nodes=(a.node,))
        (task,) = (await one.run(run_id)).tasks or ()
        await one.database.write(restore.begin_doubt)
        link = await greet(one, a)
        lost = Observation(task.attempt, FOREIGN, (Lost(3, "node rebooted"),), 9, 9)
        await say(one, a, link, lost, complete=True)
        report = NodeReport(
            node=a.node, link_epoch=link, look=(task.attempt,),
            logs={task.attempt: Stored(9, EMPTY_SHA256)},
        )  # fmt: skip
        await one.database.write(partial(attempts.report, reports=[report]))
        measured = {task.attempt: Stored(9, EMPTY_SHA256)}
        await one.database.write(partial(attempts.settle, measured=measured))
        run = await one.run(run_id)
        assert (run.outcome, run.tasks[0].log.state) == ("lost", "missing")  # type: ignore[index]  # it has one
        assert any("missing from byte 0 to byte 9" in line for line in await one.story(run_id))
