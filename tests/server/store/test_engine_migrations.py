from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from fleetwire.server.nudges.memory import MemoryNudges
from fleetwire.server.store import migrations, tables
from fleetwire.server.store.engine import Database


def open_and(url: str, query: object) -> object:
    async def main() -> object:
        database = Database.open(url, nudges=MemoryNudges(), clock=lambda: 0)
        try:
            return await database.read(query)  # type: ignore[arg-type]
        finally:
            await database.close()

    return asyncio.run(main())


def test_the_migrated_schema_is_that_of_the_tables(database_url: str) -> None:
    from alembic.autogenerate import compare_metadata  # noqa: PLC0415 - slow to import
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415 - slow to import

    def differences(connection: sa.Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), tables.metadata))

    assert open_and(database_url, differences) == []


def test_migrating_again_changes_nothing(database_url: str) -> None:
    def version(connection: sa.Connection) -> object:
        return connection.scalar(sa.text("SELECT version_num FROM alembic_version"))

    assert open_and(database_url, version) == open_and(database_url, version)


class Died(Exception):
    """Stands for a process that ends between two statements."""


@contextmanager
def dying_at(statement: int) -> Iterator[None]:
    """Let nothing be executed from this statement on, the first being 1: by what is opened
    meanwhile, and not by a server of other tests in this process.
    """
    count = itertools.count(1)
    create = sa.create_engine

    def executed(*_: object) -> None:
        if next(count) >= statement:
            raise Died

    def mortal(*arguments: Any, **options: Any) -> sa.Engine:
        engine = create(*arguments, **options)
        sa.event.listen(engine, "before_cursor_execute", executed)
        return engine

    with mock.patch.object(sa, "create_engine", mortal):
        yield


def test_a_migration_that_dies_at_any_statement_can_be_run_again(database_url: str) -> None:
    """Promise P24: all of it or nothing, whatever the database does with DDL."""

    def tables_present(connection: sa.Connection) -> object:
        return sa.inspect(connection).get_table_names()

    engine = sa.create_engine(database_url.replace("postgresql:", "postgresql+psycopg:"))
    deaths = 0
    for statement in itertools.count(1):
        try:
            with dying_at(statement):
                open_and(database_url, lambda _: None)
            break
        except Died:
            deaths += 1
        with engine.connect() as connection:
            assert tables_present(connection) == []
    engine.dispose()
    assert deaths > len(tables.metadata.tables)
    test_the_migrated_schema_is_that_of_the_tables(database_url)


def test_a_newer_schema_is_left_alone(database_url: str) -> None:
    def pretend(connection: sa.Connection) -> None:
        migrations.upgrade(connection)
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))

    async def main() -> None:
        nudges = MemoryNudges()
        database = Database.open(database_url, nudges=nudges, clock=lambda: 0, prepare=pretend)
        await database.close()
        with pytest.raises(migrations.SchemaTooNew, match="9999"):
            Database.open(database_url, nudges=nudges, clock=lambda: 0)

    asyncio.run(main())


def test_second_factors_of_an_older_server_outlive_the_update(database_url: str) -> None:
    """0008 lets their secrets go where they are encrypted; until then they are kept as they are."""
    older = {"user_id": "u", "secret": "OLDSECRET", "created_at": 1, "last_step": 7}
    user = {
        "id": "u",
        "name": "ann",
        "password_hash": "",
        "role": "user",
        "disabled": False,
        "created_at": 1,
    }

    def up_to(connection: sa.Connection, revision: str) -> None:
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    engine = sa.create_engine(database_url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        up_to(connection, "0006")
        for table, row in (("users", user), ("totps", older)):
            found = sa.Table(table, sa.MetaData(), autoload_with=connection)
            connection.execute(found.insert(), [row])
    engine.dispose()
    (row,) = open_and(database_url, lambda c: c.execute(tables.totps.select()).mappings().all())  # type: ignore[attr-defined,misc]
    assert {name: row[name] for name in older} == older
    assert (row["confirmed_at"], row["key_id"], row["nonce"], row["data"]) == (None,) * 4
