"""Two servers on one PostgreSQL that change the same thing at once: what is checked is what is
locked, or it is not what is so at the commit.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import text

from fleetwire.core import totp
from fleetwire.core.access import Forbidden
from fleetwire.server.domain import factors, nodes, people, users
from fleetwire.server.domain.people import SYSTEM_ADMIN, USER
from fleetwire.server.nudges.memory import MemoryNudges
from fleetwire.server.store.engine import Database, Tx
from fleetwire.testing.heart import Serve, new_id

WAIT_S = 30.0


class Servers:
    """Two servers, of which one holds its commit back until the other one waits for it, or has
    not waited and is done.
    """

    def __init__(self, here: Database, there: Database) -> None:
        self._here = here
        self._there = there

    async def write(self, use_case: Callable[[Tx], Any]) -> Any:
        return await self._here.write(use_case)

    async def at_once(self, first: Callable[[Tx], Any], second: Callable[[Tx], Any]) -> Any:
        """Let one do `first`, and before it commits the other one `second`; return what that does,
        or raise what it raises.
        """
        has_run, go_on = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def held(tx: Tx) -> None:
            first(tx)
            loop.call_soon_threadsafe(has_run.set)
            assert go_on.wait(WAIT_S)

        async with asyncio.TaskGroup() as group:
            group.create_task(self._here.write(held))
            await asyncio.wait_for(has_run.wait(), WAIT_S)
            other = group.create_task(_result(self._there.write(second)))
            deadline = time.monotonic() + WAIT_S
            while not other.done() and not await self._here.read(_some_wait):
                assert time.monotonic() < deadline
            go_on.set()
        result = other.result()
        if isinstance(result, Exception):
            raise result
        return result


async def _result(work: Any) -> Any:
    try:
        return await work
    except Exception as error:  # noqa: BLE001 - it is the result
        return error


def _some_wait(connection: Any) -> bool:
    mine = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid IN (SELECT pid FROM "
    mine += "pg_stat_activity WHERE datname = current_database())"
    return bool(connection.execute(text(mine)).scalar())


@pytest.fixture
def two(serve: Serve, record_url: str) -> Callable[[], Any]:
    if not record_url.startswith("postgresql"):
        pytest.skip("two servers need one PostgreSQL: --database postgres")

    @asynccontextmanager
    async def start() -> AsyncIterator[tuple[Any, Servers]]:
        async with serve(loops=False) as one:
            other = Database.open(record_url, nudges=MemoryNudges(), clock=one.clock.wall)
            try:
                yield one, Servers(one.database, other)
            finally:
                await other.close()

    return start


def make(tx: Tx, name: str, *, is_system_admin: bool = False) -> str:
    return users.create(
        tx, name, password_hash="old", is_system_admin=is_system_admin, ids=new_id
    ).id


def roles(tx: Tx) -> dict[str, str]:
    return {one.name: one.role for one in users.list_(tx.connection, after=None, limit=10)}


async def test_two_admins_do_not_make_each_other_none(two: Callable[[], Any]) -> None:
    async with two() as (_, servers):
        ann = await servers.write(lambda tx: make(tx, "ann", is_system_admin=True))
        bob = await servers.write(lambda tx: make(tx, "bob", is_system_admin=True))
        with pytest.raises(users.LastAdmin):
            await servers.at_once(
                lambda tx: users.change(tx, bob, by=ann, is_system_admin=False),
                lambda tx: users.change(tx, ann, by=bob, disabled=True),
            )
        assert await servers.write(roles) == {"ann": SYSTEM_ADMIN, "bob": USER}


async def test_who_is_made_none_does_not_stay_an_admin_by_asking(two: Callable[[], Any]) -> None:
    async with two() as (_, servers):
        ann = await servers.write(lambda tx: make(tx, "ann", is_system_admin=True))
        bob = await servers.write(lambda tx: make(tx, "bob", is_system_admin=True))
        with pytest.raises(Forbidden):
            await servers.at_once(
                lambda tx: users.change(tx, bob, by=ann, is_system_admin=False),
                lambda tx: users.change(tx, bob, by=bob, is_system_admin=True),
            )


async def test_a_drain_does_not_let_a_node_in_that_was_locked_out(two: Callable[[], Any]) -> None:
    async with two() as (one, servers):
        node = (await one.identity("web-1")).node

        def may_not() -> None:
            raise Forbidden("An operator does not let a node in.")

        with pytest.raises(Forbidden):
            await servers.at_once(
                lambda tx: nodes.set_admin(tx, node, "disabled", by="ann"),
                lambda tx: nodes.set_admin(tx, node, "draining", by="bob", check_lockout=may_not),
            )


@pytest.mark.parametrize("is_reset_first", [True, False])
async def test_a_login_begins_before_a_reset_that_ends_it_or_sees_it(
    two: Callable[[], Any], *, is_reset_first: bool
) -> None:
    async with two() as (_, servers):
        ann = await servers.write(lambda tx: make(tx, "ann"))
        seen: list[str] = []

        def reset(tx: Tx) -> None:
            users.reset_password(tx, ann, password_hash="new")

        def login(tx: Tx) -> None:
            seen.append(people.account_now(tx, ann).password_hash)
            people.start_session(tx, ann, secret="s", ids=new_id)

        if is_reset_first:
            await servers.at_once(reset, login)
            assert seen == ["new"]
        else:
            await servers.at_once(login, reset)
            assert seen == ["old"]
            assert not await servers.write(
                lambda tx: people.list_sessions(tx.connection, ann, tx.now)
            )


async def test_a_login_sees_that_its_second_factor_was_ended(two: Callable[[], Any]) -> None:
    async with two() as (one, servers):
        ann = await servers.write(lambda tx: make(tx, "ann"))
        secret = bytes(totp.SECRET_BYTES)

        def enable(tx: Tx) -> int | None:
            factors.begin(tx, ann, name="ann", secret=secret, sealing=one.secrets)
            code = totp.code_at(secret, totp.step_of(tx.now))
            factors.confirm(tx, ann, code, recovery=["lost"], sealing=one.secrets)
            return factors.since(tx.connection, ann)

        def end(tx: Tx) -> None:
            factors.end(tx, ann)
            people.end_sessions(tx, ann)

        def login(tx: Tx) -> int | None:
            people.account_now(tx, ann)
            return factors.since(tx.connection, ann)

        assert await servers.write(enable) is not None
        assert await servers.at_once(end, login) is None
