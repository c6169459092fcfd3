"""A sweep does not look again at a record that has not changed since it found nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest

from fleetwire.core.specs import RunRequest, Script
from fleetwire.server.domain import people, runs
from fleetwire.server.durable.errors import CommitUnknown
from fleetwire.server.loops.rest import Rest
from fleetwire.server.store.engine import Database, Tx
from fleetwire.testing.heart import SUBMITTER, Heart, Serve, new_id

T = TypeVar("T")


class Counting:
    """Counts what a loop asks of the database."""

    def __init__(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        for name in ("read", "write"):
            monkeypatch.setattr(database, name, self._counted(getattr(database, name)))

    def _counted(self, method: Callable[..., T]) -> Callable[..., T]:
        def counted(*args: object, **options: object) -> T:
            self.asked += 1
            return method(*args, **options)

        return counted


async def rounds(one: Heart) -> None:
    for loop in (one.dispatch, one.leases, one.sealing):
        one.clock.ahead_s += 2.0
        await loop.round()


async def settled(one: Heart) -> None:
    for _ in range(3):
        await rounds(one)


async def test_a_record_at_rest_is_left_alone(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve(loops=False) as one:
        await one.identity("a")
        await settled(one)
        shared = one.database.version() is None  # PostgreSQL: others may write as well
        counting = Counting(one.database, monkeypatch)
        await rounds(one)
        assert (counting.asked > 0) == shared


async def test_what_is_committed_is_looked_at_though_nobody_was_nudged(serve: Serve) -> None:
    async with serve(loops=False) as one:
        node = await one.identity("a")
        await settled(one)
        run_id = await submit_unheard(one, node.node)
        await rounds(one)
        assert "waits" in "".join(await one.story(run_id))


async def submit_unheard(one: Heart, node: str) -> str:
    request = RunRequest(Script("true"), nodes=(node,))

    def use_case(tx: Tx) -> str:
        made = runs.submit(
            tx, request, user=SUBMITTER, ids=new_id, idempotency=None, segment="2026-11-20"
        )
        tx._topics.clear()
        return made.run_id

    return await one.database.write(use_case)


async def test_while_something_waits_each_sweep_looks(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve(loops=False) as one:
        await one.identity("a")
        await settled(one)
        await submit_unheard(one, "a")
        await settled(one)
        counting = Counting(one.database, monkeypatch)
        one.clock.ahead_s += 2.0
        await one.dispatch.round()
        assert counting.asked == 1
        await one.leases.round()
        assert counting.asked > 1


async def test_a_version_stays_where_nothing_was_changed(serve: Serve) -> None:
    async with serve(loops=False) as one:
        database = one.database
        before = database.version()
        if before is None:
            return
        await database.read(people.has_users)
        await database.write(lambda tx: tx.now)
        assert database.version() == before
        await one.identity("a")
        assert database.version() != before


async def test_a_commit_whose_end_nobody_knows_is_a_change(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve(loops=False) as one:
        before = one.database.version()
        if before is None:
            return

        def commit(_connection: object) -> None:
            raise CommitUnknown("the connection broke")

        with monkeypatch.context() as patch:
            patch.setattr(one.database._shell, "commit", commit)
            with pytest.raises(CommitUnknown):
                await one.database.write(lambda tx: tx.now)
        assert one.database.version() != before


async def test_a_change_during_a_look_is_looked_at(serve: Serve) -> None:
    async with serve(loops=False) as one:
        rest = Rest(one.database)
        assert rest.is_over()
        await one.identity("a")
        rest.after(nothing_waits=True)
        assert rest.is_over()
        rest.after(nothing_waits=True)
        assert rest.is_over() == (one.database.version() is None)
        rest.after(nothing_waits=False)
        assert rest.is_over()
