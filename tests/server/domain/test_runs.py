"""Submitting and stopping runs, on a real database."""

from __future__ import annotations

import asyncio

import pytest

from fleetwire.core import access
from fleetwire.core.access import Reach
from fleetwire.core.errors import BadSelector, BadSpec, NoNodeMatches
from fleetwire.core.specs import RunRequest, Script
from fleetwire.server.domain import finding, runs, views
from fleetwire.server.domain.errors import Ambiguous, IdempotencyConflict, NotFound
from fleetwire.testing.heart import SUBMITTER, Heart, Serve, new_id


def request(**fields: object) -> RunRequest:
    fields = {"spec": Script("true"), **fields}
    if "nodes" not in fields:
        fields.setdefault("selector", "os=linux")
    return RunRequest(**fields)


async def submit(
    one: Heart, asked: RunRequest, key: tuple[str, str] | None = None
) -> runs.Submitted:
    return await one.database.write(
        lambda tx: runs.submit(
            tx, asked, user=SUBMITTER, ids=new_id, idempotency=key, segment="2026-11-20"
        )
    )


async def test_a_run_has_a_pending_task_for_each_node_by_name(serve: Serve) -> None:
    async with serve(loops=False) as one:
        for name in ("web-2", "web-1", "db-1"):
            await one.identity(name, role=name[:-2])
        submitted = await submit(one, request(selector="role=web", name="hello"))
        assert submitted.created
        run = await one.run(submitted.run_id)
        assert [task.node for task in run.tasks] == ["web-1", "web-2"]
        assert {task.state for task in run.tasks} == {"pending"}
        assert (run.state, run.outcome, run.sealed, run.name) == ("pending", None, False, "hello")
        assert run.counts["total"] == run.counts["pending"] == 2


async def test_any_makes_tasks_without_a_node(serve: Serve) -> None:
    async with serve(loops=False) as one:
        for name in "abc":
            await one.identity(name)
        run = await one.run((await submit(one, request(any=2))).run_id)
        assert [task.node for task in run.tasks] == [None, None]


async def test_the_answer_to_a_submission_is_the_run_as_the_store_has_it(serve: Serve) -> None:
    async with serve(loops=False) as one:
        await one.identity("a")
        await one.identity("b")
        for asked in (request(name="hello"), request(any=1), request(selector=None, nodes=("b",))):
            made = (await submit(one, asked)).made
            assert made is not None
            assert made == await one.run(made.id)


async def test_labels_that_change_are_seen_at_once(serve: Serve) -> None:
    async with serve(loops=False) as one:
        with pytest.raises(NoNodeMatches):
            await submit(one, request())
        await one.identity("a")
        assert (await one.run((await submit(one, request())).run_id)).counts["total"] == 1
        await one.identity("b")
        assert (await one.run((await submit(one, request())).run_id)).counts["total"] == 2


async def test_a_node_of_a_transaction_that_failed_is_never_selected(serve: Serve) -> None:
    async with serve(loops=False) as one:
        await one.identity("a")
        with pytest.raises(NoNodeMatches) as caught:
            await submit(one, request(selector="role=db"))
        assert caught.value.labels["os"] == ["linux"]
        with pytest.raises(BadSelector):
            await submit(one, request(selector="role=("))
        with pytest.raises(BadSpec):
            await submit(one, request(nodes=()))
        page = await one.database.read(lambda c: views.list_runs(c, limit=10))
        assert page.items == []


async def test_the_same_key_and_body_is_the_same_run(serve: Serve) -> None:
    async with serve(loops=False) as one:
        await one.identity("a")
        first = await submit(one, request(), ("key", "hash"))
        again = await submit(one, request(), ("key", "hash"))
        assert (again.run_id, again.created) == (first.run_id, False)
        with pytest.raises(IdempotencyConflict) as caught:
            await submit(one, request(), ("key", "other"))
        assert caught.value.code == "idempotency-key-reused"
        one.clock.ahead_s += 24 * 3600 - 60
        assert not (await submit(one, request(), ("key", "hash"))).created
        one.clock.ahead_s += 120
        later = await submit(one, request(), ("key", "other"))
        assert later.created
        assert later.run_id != first.run_id


async def test_twenty_submits_with_one_key_at_once_make_one_run(serve: Serve) -> None:
    async with serve(loops=False) as one:
        await one.identity("a")
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(submit(one, request(), ("key", "hash"))) for _ in range(20)]
        assert len({task.result().run_id for task in tasks}) == 1
        assert sum(task.result().created for task in tasks) == 1


async def test_a_stop_of_what_is_pending_ends_it_and_seals_its_empty_log(serve: Serve) -> None:
    async with serve(loops=False) as one:
        await one.identity("a")
        await one.identity("b")
        run_id = (await submit(one, request())).run_id
        await one.stop(run_id)
        run = await one.run(run_id)
        assert (run.state, run.outcome, run.wish, run.sealed) == ("ended", "canceled", "stop", True)
        assert [task.log.length for task in run.tasks] == [0, 0]
        assert all(task.log.complete for task in run.tasks)
        before = await one.story(run_id)
        await one.stop(run_id)
        assert await one.story(run_id) == before
        with pytest.raises(NotFound):
            await one.stop(new_id())


async def test_pages_and_prefixes(serve: Serve) -> None:
    async with serve(loops=False) as one:
        await one.identity("a")
        made = [(await submit(one, request(name=f"run {n}"))).run_id for n in range(5)]
        first = await one.database.read(lambda c: views.list_runs(c, limit=2))
        cursor = first.next_cursor
        rest = await one.database.read(lambda c: views.list_runs(c, limit=10, cursor=cursor))
        seen = [run.id for run in [*first.items, *rest.items]]
        assert sorted(seen) == sorted(made)
        assert rest.next_cursor is None
        assert seen == sorted(seen, reverse=True)

        mine = frozenset({access.DEFAULT_PROJECT})
        reach = Reach("read", mine, mine)
        found = await one.database.read(lambda c: finding.run(c, made[0][:35], reach))
        assert found[:35] == made[0][:35]
        with pytest.raises(Ambiguous):
            await one.database.read(lambda c: finding.run(c, made[0][:6], reach))
        with pytest.raises(NotFound):
            await one.database.read(lambda c: finding.run(c, "ffffff", reach))
        with pytest.raises(NotFound):
            await one.database.read(lambda c: finding.run(c, "x%_'", reach))
        node = await one.node_named("a")
        assert node.link == "offline"
        short = node.id[:13]
        assert await one.database.read(lambda c: finding.node(c, short, reach)) == node.id
