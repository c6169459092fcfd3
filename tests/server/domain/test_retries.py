"""Retries through the use cases: successors, folds, back-off, what old nodes are told (P3)."""

from __future__ import annotations

import hashlib
from functools import partial

from fleetwire.core import limits
from fleetwire.core.desired import Observation
from fleetwire.core.happenings import Exited, Started
from fleetwire.core.retry import Retry
from fleetwire.server.domain import attempts, breaker, desired, nodes
from fleetwire.server.domain.attempts import Answer, NodeReport, Stored
from fleetwire.server.domain.desired import Asked
from fleetwire.server.domain.nodes import Greeting
from fleetwire.server.domain.views import TaskView
from fleetwire.testing.fake_node import Identity
from fleetwire.testing.heart import Heart, Serve, now_us

EMPTY = hashlib.sha256(b"").hexdigest()


class Spoken:
    """A node whose words are said by the test."""

    def __init__(self, one: Heart, identity: Identity) -> None:
        self.one = one
        self.node = identity.node
        self.identity = identity
        self.link = 0

    async def greet(self) -> None:
        greeting = Greeting(self.identity.incarnation, "boot", "1", 0, now_us(), None)
        accepted = await self.one.database.write(
            partial(nodes.accept_hello, node=self.node, greeting=greeting)
        )
        self.link = accepted.link_epoch

    async def orders(self) -> list[tuple[str, int]]:
        """Return (attempt, epoch) of what may start now."""
        await self.one.dispatch.round()
        levels = await self.one.database.write(
            partial(desired.desired, asked={self.node: Asked(self.link)}, key="k")
        )
        return [
            (wanted.attempt, wanted.epoch)
            for wanted in levels[self.node].wanted
            if wanted.order is not None
        ]

    async def say(self, attempt: str, epoch: int, *happenings: Started | Exited) -> Answer:
        said = NodeReport(
            node=self.node,
            link_epoch=self.link,
            observed=(Observation(attempt, epoch, happenings),),
            logs={attempt: Stored(0, None)},
        )
        (answer,) = await self.one.database.write(partial(attempts.report, reports=[said]))
        return answer


async def spoken(one: Heart, name: str) -> Spoken:
    node = Spoken(one, await one.identity(name))
    await node.greet()
    return node


def exited(code: int) -> Exited:
    return Exited(5, "exited", code, None, 1, 0.5, 0, EMPTY)


async def task_of(one: Heart, run_id: str) -> TaskView:
    run = await one.run(run_id)
    assert run.tasks is not None
    return run.tasks[0]


async def test_a_failed_attempt_has_a_successor_after_the_back_off(serve: Serve) -> None:
    async with serve(loops=False) as one:
        node = await spoken(one, "a")
        run_id = await one.submit(retry=Retry(on_failure=True, count=2, backoff=60.0))
        ((first, first_epoch),) = await node.orders()
        await node.say(first, first_epoch, Started(1), exited(3))
        run = await one.run(run_id)
        assert (run.state, run.outcome, run.counts["pending"]) == ("pending", None, 1)
        task = await task_of(one, run_id)
        assert (task.number, task.state, task.node) == (2, "pending", "a")
        assert task.reason is not None
        assert task.reason.startswith("retry 1 of 2 not before ")
        assert [(e.attempt, e.number, e.outcome, e.exit_code) for e in task.earlier] == [
            (first, 1, "failed", 3)
        ]
        assert await node.orders() == []
        one.clock.ahead_s += 61
        ((second, second_epoch),) = await node.orders()
        assert second == task.attempt != first
        assert second_epoch > first_epoch
        await node.say(second, second_epoch, Started(1), exited(4))
        one.clock.ahead_s += 61
        assert await node.orders() == []  # twice as long each time
        one.clock.ahead_s += 60
        ((third, third_epoch),) = await node.orders()
        await node.say(third, third_epoch, Started(1), exited(5))
        run = await one.run(run_id)
        assert (run.state, run.outcome, run.sealed) == ("ended", "failed", True)
        assert {key: n for key, n in run.counts.items() if n} == {"total": 1, "failed": 1}
        task = await task_of(one, run_id)
        assert [e.exit_code for e in (*task.earlier, task)] == [3, 4, 5]
        one.clock.ahead_s += 1e5
        assert await node.orders() == []
        story = await one.story(run_id)
        assert sum("retry" in line for line in story) == 2


async def test_the_run_is_as_its_latest_attempt(serve: Serve) -> None:
    async with serve(loops=False) as one:
        node = await spoken(one, "a")
        run_id = await one.submit(retry=Retry(on_failure=True, backoff=0.0))
        ((first, epoch),) = await node.orders()
        await node.say(first, epoch, Started(1), exited(1))
        ((second, epoch),) = await node.orders()
        await node.say(second, epoch, Started(1), exited(0))
        run = await one.run(run_id)
        assert (run.state, run.outcome, run.sealed) == ("ended", "succeeded", True)


async def test_a_stop_ends_a_pending_retry(serve: Serve) -> None:
    async with serve(loops=False) as one:
        node = await spoken(one, "a")
        run_id = await one.submit(retry=Retry(on_failure=True, backoff=60.0))
        ((first, epoch),) = await node.orders()
        await node.say(first, epoch, Started(1), exited(1))
        await one.stop(run_id)
        run = await one.run(run_id)
        assert (run.state, run.outcome, run.sealed) == ("ended", "canceled", True)
        one.clock.ahead_s += 100
        assert await node.orders() == []


async def test_a_retry_that_finds_no_place_expires(serve: Serve) -> None:
    async with serve(loops=False) as one:
        node = await spoken(one, "a")
        run_id = await one.submit(retry=Retry(on_failure=True, backoff=60.0), queue_timeout=100.0)
        ((first, epoch),) = await node.orders()
        await node.say(first, epoch, Started(1), exited(1))
        one.clock.ahead_s += 159
        await one.leases.round()
        assert (await one.run(run_id)).state == "pending"
        one.clock.ahead_s += 2
        await one.leases.round()
        run = await one.run(run_id)
        assert (run.state, run.outcome) == ("ended", "expired")


async def test_what_was_lost_runs_elsewhere_and_the_old_one_is_stopped_on_contact(
    serve: Serve,
) -> None:
    async with serve(loops=False) as one:
        old = await spoken(one, "a")
        run_id = await one.submit(any=1, retry=Retry(on_lost=True, backoff=0.0), lost_after=10.0)
        ((first, first_epoch),) = await old.orders()
        await old.say(first, first_epoch, Started(1))
        other = await spoken(one, "b")
        one.clock.ahead_s += limits.TIMEOUT_DEFAULT_S + limits.GRACE_DEFAULT_S + 9
        await one.leases.round()
        assert (await task_of(one, run_id)).number == 1
        one.clock.ahead_s += 2
        await one.leases.round()
        # `a` is free as well, as far as anybody knows; what was tried there goes elsewhere.
        await old.greet()
        await other.greet()
        ((second, second_epoch),) = await other.orders()
        task = await task_of(one, run_id)
        assert (task.attempt, task.node, task.number) == (second, "b", 2)
        assert [(e.outcome, e.wish) for e in task.earlier] == [("lost", "stop")]
        one.clock.ahead_s += 3 * 24 * 3600.0
        await old.greet()
        answer = await old.say(first, first_epoch, Started(1))
        assert answer.void == ((first, first_epoch, "stop"),)
        await old.say(first, first_epoch, Started(1), exited(143))
        await other.say(second, second_epoch, Started(1), exited(0))
        task = await task_of(one, run_id)
        assert task.outcome == "succeeded"
        (earlier,) = task.earlier
        assert earlier.outcome == "lost"
        assert earlier.late_exit is not None
        assert earlier.late_exit.exit_code == 143
        run = await one.run(run_id)
        assert (run.state, run.outcome) == ("ended", "succeeded")


async def test_a_lost_attempt_without_a_successor_runs_on(serve: Serve) -> None:
    async with serve(loops=False) as one:
        node = await spoken(one, "a")
        run_id = await one.submit(lost_after=0.0)
        ((first, epoch),) = await node.orders()
        await node.say(first, epoch, Started(1))
        one.clock.ahead_s += limits.TIMEOUT_DEFAULT_S + limits.GRACE_DEFAULT_S + 1
        await one.leases.round()
        assert (await one.run(run_id)).outcome == "lost"
        assert (await node.say(first, epoch, Started(1))).void == ()
        await one.stop(run_id)
        assert (await node.say(first, epoch, Started(1))).void == ((first, epoch, "stop"),)


async def test_tasks_of_one_run_keep_apart_though_they_are_tried_again(serve: Serve) -> None:
    async with serve(loops=False) as one:
        spoken_nodes = [await spoken(one, name) for name in "ab"]
        run_id = await one.submit(any=2, retry=Retry(on_failure=True, backoff=0.0, count=9))
        for _ in range(3):
            for node in spoken_nodes:
                for attempt, epoch in await node.orders():
                    await node.say(attempt, epoch, Started(1), exited(1))
        run = await one.run(run_id)
        assert run.tasks is not None
        for one_of_each in zip(*([*task.earlier, task] for task in run.tasks), strict=False):
            placed = [view.node for view in one_of_each if view.node is not None]
            assert len(placed) == len(set(placed))
        assert all(task.number > 1 for task in run.tasks)


async def test_no_retry_begins_while_the_breaker_is_open(serve: Serve) -> None:
    async with serve(loops=False) as one:
        node = await spoken(one, "a")
        run_id = await one.submit(retry=Retry(on_failure=True, backoff=0.0))
        ((first, epoch),) = await node.orders()
        await one.database.write(partial(breaker.open_, gone=11, of=12))
        await node.say(first, epoch, Started(1), exited(1))
        assert await node.orders() == []
        task = await task_of(one, run_id)
        assert task.number == 2
        assert task.reason is not None
        assert "11 of 12" in task.reason
        await one.database.write(partial(breaker.close, because="by a test"))
        one.clock.ahead_s += 1
        assert len(await node.orders()) == 1
