"""Chains in the database: in the action's own commit, in one piece however many append."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import sqlalchemy as sa

from fleetwire.client.audit import verifies
from fleetwire.core.audit import SERVER, SYSTEM, Act, Head, Verdict, genesis, verify
from fleetwire.server.nudges.memory import MemoryNudges
from fleetwire.server.store import audit, meta
from fleetwire.server.store.engine import CommitFailed, Database, Tx

WEB = "00000000-0000-7000-8000-00000000000a"
AT = 1_700_000_000_000_000


def with_record(url: str, test: Callable[[Database], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        database = Database.open(url, nudges=MemoryNudges(), clock=lambda: AT)
        try:
            await test(database)
        finally:
            await database.close()

    asyncio.run(main())


def act(chain: str = SYSTEM, **detail: str) -> Act:
    return Act("breaker.close", SERVER, chain, detail=detail)


def counted(number: int, *, chains: tuple[str, ...] = (SYSTEM,)) -> Callable[[Tx], None]:
    """A use case with a row of its own and its entries."""

    def use_case(tx: Tx) -> None:
        meta.put(tx.connection, f"number:{number}", "x")
        for chain in chains:
            tx.audit(act(chain, number=str(number)))

    return use_case


async def checked(database: Database, chain: str = SYSTEM) -> Verdict:
    entries = await database.read(lambda c: audit.stretch(c, chain, after=0, limit=100_000))
    head = await database.read(lambda c: audit.head(c, chain))
    return verify(
        entries, [], cluster="", chain=chain, keys=frozenset(), verifies=verifies, known=[head]
    )


def told(connection: sa.Connection, chain: str = SYSTEM) -> set[int]:
    found = audit.stretch(connection, chain, after=0, limit=100_000)
    return {int(one.entry.detail["number"]) for one in found}


def done(connection: sa.Connection) -> set[int]:
    return {int(key.rpartition(":")[2]) for key in meta.beginning_with(connection, "number:")}


class Refused(Exception):
    """The use case thinks better of it."""


def test_an_entry_is_there_if_and_only_if_its_action_was_committed(database_url: str) -> None:
    async def test(database: Database) -> None:
        def fail(tx: Tx) -> None:
            counted(1)(tx)
            raise Refused

        results = await asyncio.gather(
            database.write(counted(0)),
            database.write(fail),
            database.write(counted(2)),
            return_exceptions=True,
        )
        assert [type(one) for one in results] == [type(None), Refused, type(None)]
        assert await database.read(told) == await database.read(done) == {0, 2}
        assert (await checked(database)).is_good

    with_record(database_url, test)


def test_what_cannot_be_audited_is_not_done(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(database: Database) -> None:
        await database.write(counted(0))

        def broken(*_: object) -> None:
            raise CommitFailed("no chain")

        with monkeypatch.context() as patch:
            patch.setattr(audit, "append", broken)
            with pytest.raises(CommitFailed):
                await database.write(counted(1))
        await database.write(counted(2))
        assert await database.read(told) == await database.read(done) == {0, 2}

    with_record(database_url, test)


def test_a_commit_of_several_chains_grows_each_of_them(database_url: str) -> None:
    async def test(database: Database) -> None:
        await database.write(counted(0, chains=(WEB, SYSTEM, WEB)))
        await asyncio.gather(*(database.write(counted(n, chains=(WEB,))) for n in range(1, 40)))
        system, web = await checked(database), await checked(database, WEB)
        assert system.is_good
        assert web.is_good
        assert (system.entries, web.entries) == (1, 41)
        assert await database.read(audit.heads) == {SYSTEM: system.head, WEB: web.head}

    with_record(database_url, test)


def test_what_appends_costs_three_statements_a_chain_however_much_it_is(
    database_url: str,
) -> None:
    async def test(database: Database) -> None:
        await database.write(counted(0))
        ran: list[str] = []
        connection = database._connection
        assert connection is not None
        driver: Any = connection.connection.dbapi_connection
        if not hasattr(driver, "set_trace_callback"):
            return  # PostgreSQL sends the same ones
        driver.set_trace_callback(ran.append)
        await database.write(lambda tx: [tx.audit(act(n=str(n))) for n in range(32)])
        driver.set_trace_callback(None)
        assert [one for one in ran if "audit_" in one] == [
            one for one in ran if one.split()[0] in {"SELECT", "UPDATE", "INSERT"}
        ]
        assert len([one for one in ran if "audit_" in one]) == 3

    with_record(database_url, test)


def test_the_first_entry_follows_cluster_and_chain(database_url: str) -> None:
    async def test(database: Database) -> None:
        await database.write(lambda tx: meta.put(tx.connection, "cluster", "c1"))
        await database.write(counted(0))
        (entry,) = await database.read(lambda c: audit.stretch(c, SYSTEM, after=0, limit=2))
        keys: frozenset[bytes] = frozenset()
        for cluster, good in (("c1", True), ("c2", False)):
            found = verify([entry], [], cluster=cluster, chain=SYSTEM, keys=keys, verifies=verifies)
            assert found.is_good is good
        assert genesis("c1", SYSTEM) != entry.hash
        assert await database.read(lambda c: audit.head(c, SYSTEM)) == Head(1, entry.hash)

    with_record(database_url, test)


CHILD = """
import asyncio, sys
from fleetwire.core.audit import SERVER, Act
from fleetwire.server.nudges.memory import MemoryNudges
from fleetwire.server.store import meta
from fleetwire.server.store.engine import Database

async def main():
    url, first, count, *chains = sys.argv[1:]
    database = Database.open(url, nudges=MemoryNudges(), clock=lambda: 1)
    async def one(number):
        def case(tx):
            meta.put(tx.connection, f"number:{number}", "x")
            # Each process in another order: whoever locked as it comes would wait for ever.
            for chain in chains:
                tx.audit(Act("breaker.close", SERVER, chain, detail={"number": str(number)}))
        await database.write(case)
        print(number, flush=True)
    for start in range(int(first), int(first) + int(count), 8):
        await asyncio.gather(*(one(number) for number in range(start, start + 8)))
    await database.close()

asyncio.run(main())
"""


def child(url: str, first: int, count: int, *chains: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-c", CHILD, url, str(first), str(count), *chains]
    return subprocess.Popen(words, stdout=subprocess.PIPE, env=os.environ)


@pytest.mark.slow
def test_two_processes_that_append_at_once_keep_one_chain(database_url: str) -> None:
    """On PostgreSQL as two servers do; on SQLite a command beside the server."""
    each = 200
    with (
        child(database_url, 0, each, SYSTEM, WEB) as one,
        child(database_url, each, each, WEB, SYSTEM) as two,
    ):
        assert (one.wait(60), two.wait(60)) == (0, 0)

    async def test(database: Database) -> None:
        for chain in (SYSTEM, WEB):
            verdict = await checked(database, chain)
            assert verdict.is_good, verdict
            assert verdict.entries == 2 * each
            assert await database.read(lambda c, chain=chain: told(c, chain)) == set(
                range(2 * each)
            )

    with_record(database_url, test)


@pytest.mark.slow
@pytest.mark.faults
def test_kill_9_leaves_no_action_without_entry_and_no_entry_without_action(
    database_url: str,
) -> None:
    acknowledged: set[int] = set()
    for turn, lines in enumerate((1, 40, 333)):
        with child(database_url, turn * 100_000, 99_000, SYSTEM, WEB) as process:
            assert process.stdout is not None
            said = [process.stdout.readline() for _ in range(lines)]
            process.send_signal(signal.SIGKILL)
            said += [line for line in process.stdout if line.endswith(b"\n")]
        acknowledged |= {int(line) for line in said}

    async def test(database: Database) -> None:
        rows = await database.read(done)
        assert acknowledged <= rows
        for chain in (SYSTEM, WEB):
            assert await database.read(lambda c, chain=chain: told(c, chain)) == rows
            verdict = await checked(database, chain)
            assert verdict.is_good
            assert verdict.entries == len(rows)

    with_record(database_url, test)
