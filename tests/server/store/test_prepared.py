from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from fleetwire.server.store.engine import Database, Tx
from fleetwire.server.store.prepared import Prepared


def test_a_prepared_statement_does_what_core_does(
    with_database: Callable[..., None], table: sa.Table
) -> None:
    insert = Prepared(table.insert())
    update = Prepared(
        table.update()
        .where(table.c.number == sa.bindparam("n"), table.c.word == "old")
        .values(word=sa.bindparam("new"))
    )
    select = Prepared(sa.select(table).where(table.c.number == sa.bindparam("n")))

    async def test(database: Database) -> None:
        def use_case(tx: Tx) -> list[Any]:
            insert(tx.connection, {"number": 1, "word": "old", "parent": None})
            insert(tx.connection, {"number": 2, "word": "other", "parent": 1})
            counts = [
                update(tx.connection, {"n": n, "new": new}).rowcount
                for n, new in ((1, "new"), (1, "again"), (2, "never"))
            ]
            return [counts, *(tuple(select(tx.connection, {"n": n}).one()) for n in (1, 2))]

        assert await database.write(use_case) == [[1, 0, 0], (1, "new", None), (2, "other", 1)]

    with_database(test)


def test_types_convert_what_goes_in(with_database: Callable[..., None]) -> None:
    table = sa.Table(
        "typed", sa.MetaData(), sa.Column("id", sa.Integer), sa.Column("spec", sa.JSON)
    )
    insert = Prepared(table.insert())

    async def test(database: Database) -> None:
        def use_case(tx: Tx) -> object:
            table.create(tx.connection)
            insert(tx.connection, {"id": 1, "spec": {"kind": "ping"}})
            return tx.connection.scalar(sa.select(table.c.spec))

        assert await database.write(use_case) == {"kind": "ping"}

    with_database(test)


def test_a_list_cannot_be_prepared(with_database: Callable[..., None], table: sa.Table) -> None:
    statement = Prepared(sa.select(table).where(table.c.number.in_(sa.bindparam("many"))))

    async def test(database: Database) -> None:
        with pytest.raises(TypeError):
            await database.read(lambda c: statement(c, {"many": [1, 2]}))

    with_database(test)
