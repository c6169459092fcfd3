"""Retention by a clock of the test: what goes, what stays, and what a reader is told."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import text

from fleetwire.core.desired import Observation
from fleetwire.core.happenings import Exited, Started
from fleetwire.core.retention import Keep
from fleetwire.core.specs import Step
from fleetwire.server.domain import attempts, nodes, retention
from fleetwire.server.domain.attempts import NodeReport
from fleetwire.server.domain.errors import NotFound
from fleetwire.server.domain.nodes import Greeting
from fleetwire.server.logs.base import LogGone
from fleetwire.server.loops.retention import RetentionLoop
from fleetwire.testing.fake_node import Behaviour, Identity
from fleetwire.testing.heart import Heart, Serve, heart

DAY = 24 * 3600.0
EXITED = Exited(5, "exited", 0, None, 1, 0.5, 6, hashlib.sha256(b"hello\n").hexdigest())
KEEP = Keep(logs_s=2 * DAY, runs_s=5 * DAY, events_s=3 * DAY)


def loop_of(one: Heart, keep: Keep = KEEP) -> RetentionLoop:
    return RetentionLoop(one.database, one.logs, keep, clock=one.clock.wall)


async def rows(one: Heart, table: str) -> int:
    return await one.database.read(
        lambda c: int(c.execute(text(f"SELECT count(*) FROM {table}")).scalar() or 0)  # noqa: S608 - a test's own
    )


async def done(one: Heart, *, count: int = 1) -> list[str]:
    """Run something to its end on the node `a`."""
    made = []
    node = await one.node(f"n{one.clock.ahead_s:.0f}")
    async with node.connected():
        for _ in range(count):
            made.append(
                await one.submit(
                    Step("print", text="x" * 100, count=20), nodes=(node.identity.node,)
                )
            )
            await one.dispatch.round()
        for run_id in made:
            await one.wait_run(run_id)
    return made


async def test_logs_go_first_then_runs_with_all_that_belongs_to_them(serve: Serve) -> None:
    async with serve(loops=False) as one:
        loop = loop_of(one)
        (old,) = await done(one)
        (task,) = (await one.run(old)).tasks or ()
        segment = one.logs.segment_now()
        assert "deleted 0 runs, 0 events and the logs of 0 days" in await loop.round()
        one.clock.ahead_s += 4 * DAY
        (young,) = await done(one)
        said = await loop.round()
        assert "and the logs of 1 days" in said
        assert list(await one.logs.segments()) == [one.logs.segment_now()]
        with pytest.raises(LogGone, match="kept for 2 days, which are over"):
            await one.logs.read(segment, task.attempt, 0, 1)
        assert (await one.run(old)).outcome == "succeeded"
        one.clock.ahead_s += 2 * DAY
        assert "deleted 1 runs" in await loop.round()
        with pytest.raises(NotFound):
            await one.run(old)
        assert (await one.run(young)).outcome == "succeeded"
        assert (await rows(one, "attempts"), await rows(one, "tasks")) == (1, 1)
        assert await rows(one, f"decisions WHERE run_id = '{old}'") == 0
        one.clock.ahead_s += 100 * DAY
        await loop.round()
        for table in ("runs", "tasks", "attempts", "decisions"):
            assert await rows(one, table) == 0
        assert await one.logs.segments() == {}


async def test_nothing_that_is_not_settled_is_touched(serve: Serve) -> None:
    async with serve(loops=False) as one:
        loop = loop_of(one)
        node = await one.node("a", Behaviour(hold=True))
        async with node.connected():
            running = await one.submit()
            await one.dispatch.round()
            await one.wait_run(running, lambda run: run.counts["running"] == 1)
            await one.wait(one.logs.segments, bool)
        await one.identity("b")
        pending = await one.submit(nodes=("b",), queue_timeout=30 * DAY)
        (ended,) = await done(one)
        segment = one.logs.segment_now()
        one.clock.ahead_s += 20 * DAY
        assert "deleted 1 runs" in await loop.round()
        with pytest.raises(NotFound):
            await one.run(ended)
        assert segment in await one.logs.segments()
        for run_id in (running, pending):
            assert (await one.run(run_id)).state != "ended"


async def test_a_segment_waits_for_the_last_end_in_it(serve: Serve) -> None:
    """A task that began before midnight and ran for days: its log is as young as its end."""
    async with serve(loops=False) as one:
        loop = loop_of(one)
        node = await one.node("a", Behaviour(hold=True))
        segment = one.logs.segment_now()
        async with node.connected():
            run_id = await one.submit(Step("print", text="hello"))
            await one.dispatch.round()
            await one.wait_run(run_id, lambda run: run.counts["running"] == 1)
            await one.wait(one.logs.segments, bool)
            one.clock.ahead_s += 4 * DAY
            for attempt in list(node.spool):
                node.release(attempt)
            await one.wait_run(run_id)
            await loop.round()
            assert segment in await one.logs.segments()
            one.clock.ahead_s += 2 * DAY
            await loop.round()
            assert segment not in await one.logs.segments()


async def test_an_end_that_comes_after_its_segment_has_gone_is_settled(serve: Serve) -> None:
    async with serve(loops=False) as one:
        loop = loop_of(one)
        node = await one.node("a", Behaviour(hold=True))
        async with node.connected():
            run_id = await one.submit(Step("print", text="hello"), lost_after=0.0)
            await one.dispatch.round()
            await one.wait_run(run_id, lambda run: run.counts["running"] == 1)
            await one.wait(one.logs.segments, bool)
        one.clock.ahead_s += DAY
        await one.leases.round()
        await one.sealing.round()
        await one.wait_run(run_id)
        one.clock.ahead_s += 3 * DAY
        assert "logs of 1 days" in await loop.round()
        # The node comes back, and says how it ended.
        (attempt,) = node.spool.values()
        said = NodeReport(
            node=node.identity.node,
            link_epoch=await hello(one, node.identity),
            observed=(Observation(attempt.attempt, attempt.epoch, (Started(1), EXITED), 6),),
        )
        await one.database.write(partial(attempts.report, reports=[said]))
        run = await one.run(run_id)
        assert run.tasks is not None
        assert run.tasks[0].late_exit == EXITED
        assert not run.sealed
        await one.sealing.round()
        run = await one.run(run_id)
        assert run.sealed
        assert run.tasks is not None
        assert run.tasks[0].log.state == "missing"
        assert any("past their retention" in line for line in await one.story(run_id))


async def hello(one: Heart, identity: Identity) -> int:
    greeting = Greeting(identity.incarnation, "boot", "1", 0, one.clock.wall(), None)
    accepted = await one.database.write(
        partial(nodes.accept_hello, node=identity.node, greeting=greeting)
    )
    return accepted.link_epoch


async def test_a_long_story_goes_in_several_steps(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "ROWS_AT_ONCE", 2)
    monkeypatch.setattr(retention, "LOOKED_AT_ONCE", 2)
    async with serve(loops=False) as one:
        loop = loop_of(one)
        await done(one, count=5)
        one.clock.ahead_s += 10 * DAY
        assert "deleted 5 runs" in await loop.round()
        for table in ("runs", "tasks", "attempts", "decisions"):
            assert await rows(one, table) == 0


async def test_what_it_frees_of_sqlite_is_free(tmp_path: Path) -> None:
    """Whatever database this run is about: PostgreSQL gives its room back by itself."""
    async with heart(tmp_path, loops=False) as one:
        file = tmp_path / "fleetwire.db"
        await one.identity("a")
        for _ in range(20):
            run_id = await one.submit(
                *(Step("print", text="x" * 1000) for _ in range(200)), queue_timeout=60.0
            )
        one.clock.ahead_s += 61
        await one.leases.round()
        assert (await one.run(run_id)).outcome == "expired"
        segments = await one.logs.segments()
        assert segments == {}
        before = await one.database.read(pages)
        one.clock.ahead_s += 10 * DAY
        said = await loop_of(one).round()
        assert "deleted 20 runs" in said
        assert "0.0 MiB" not in said
        after = await one.database.read(pages)
        assert after < before / 4
    assert file.stat().st_size < before * 4096 / 4


def pages(connection: object) -> int:
    return int(connection.execute(text("PRAGMA page_count")).scalar())  # type: ignore[attr-defined]  # a connection
