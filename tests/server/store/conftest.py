"""A database of the test's own tables: the engine knows none of the server's."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import sqlalchemy as sa

from fleetwire.server.nudges.memory import MemoryNudges
from fleetwire.server.store.engine import Database

OTHER = {
    "sqlite": {"test_engine_postgres.py", "test_two_processes.py", "test_two_servers.py"},
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is about the other database: it would only be skipped."""
    other = OTHER.get(config.getoption("--database"), {"test_engine_sqlite.py"})
    left_out = [item for item in items if item.path.name in other]
    items[:] = [item for item in items if item.path.name not in other]
    config.hook.pytest_deselected(items=left_out)


metadata = sa.MetaData()
numbers = sa.Table(
    "numbers",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("word", sa.Text),
    sa.Column(
        "parent",
        sa.Integer,
        sa.ForeignKey("numbers.number", deferrable=True, initially="DEFERRED"),
    ),
)


@pytest.fixture
def table() -> sa.Table:
    """Columns number, word, parent: a foreign key to number, checked at COMMIT."""
    return numbers


@pytest.fixture
def nudges() -> MemoryNudges:
    return MemoryNudges()


@pytest.fixture
def with_database(database_url: str, nudges: MemoryNudges) -> Callable[..., None]:
    """Run an async function with an open database, and close it."""

    def run(test: Callable[[Database], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            clock = itertools.count(1000).__next__
            database = Database.open(
                database_url, nudges=nudges, clock=clock, prepare=metadata.create_all
            )
            try:
                await test(database)
            finally:
                await database.close()

        asyncio.run(main())

    return run
