from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateTable

from fleetwire.server.store import attempts, runs, tables
from fleetwire.server.store.engine import Database, Tx
from fleetwire.server.store.prepared import (
    AT_ONCE,
    ROWS_AT_ONCE,
    Prepared,
    PreparedIn,
    of_many_rows,
)


def test_a_prepared_statement_does_what_core_does(
    with_database: Callable[..., None], table: sa.Table
) -> None:
    insert = Prepared(table.insert(), ["number", "word", "parent"])
    update = Prepared(
        table.update()
        .where(table.c.number == sa.bindparam("n"), table.c.word == "old")
        .values(word=sa.bindparam("new"))
    )
    select = Prepared(sa.select(table).where(table.c.number == sa.bindparam("n")))

    async def test(database: Database) -> None:
        def use_case(tx: Tx) -> list[Any]:
            insert.change(tx.connection, {"number": 1, "word": "old", "parent": None})
            insert.change_all(
                tx.connection, [{"number": n, "word": "other", "parent": 1} for n in (2, 3)]
            )
            counts = [
                update.change(tx.connection, {"n": n, "new": new})
                for n, new in ((1, "new"), (1, "again"), (2, "never"))
            ]
            rows = [tuple(select.first(tx.connection, {"n": n})) for n in (1, 2)]
            return [counts, *rows, select.first(tx.connection, {"n": 4})]

        assert await database.write(use_case) == [
            [1, 0, 0],
            (1, "new", None),
            (2, "other", 1),
            None,
        ]

    with_database(test)


@pytest.mark.parametrize("count", [1, 2, 3, ROWS_AT_ONCE, 2 * ROWS_AT_ONCE + 7])
def test_many_rows_are_changed_as_one_is(
    with_database: Callable[..., None], table: sa.Table, count: int
) -> None:
    insert = Prepared(table.insert(), ["number", "word", "parent"])
    update = Prepared(
        table.update()
        .where(table.c.number == sa.bindparam("n"))
        .where(table.c.word == sa.bindparam("was")),
        ["word", "parent"],
    )

    async def test(database: Database) -> None:
        def use_case(tx: Tx) -> tuple[int, int, list[Any]]:
            made = insert.change_all(
                tx.connection,
                [{"number": n, "word": "even?" if n % 2 == 0 else "odd", "parent": None}
                 for n in range(count)],
            )  # fmt: skip
            changed = update.change_all(
                tx.connection,
                [{"n": n, "was": "even?", "word": f"{n}", "parent": 0} for n in range(count)],
            )
            rows = tx.connection.execute(sa.select(table).order_by(table.c.number))
            return made, changed, [tuple(row) for row in rows]

        assert await database.write(use_case) == (
            count,
            (count + 1) // 2,
            [(n, "odd", None) if n % 2 else (n, f"{n}", 0) for n in range(count)],
        )

    with_database(test)


def test_many_updates_look_each_row_up_by_its_key() -> None:
    for statement in (attempts._setting(("state", "node_id", "log_state")), runs._REFOLD):
        compiled = statement._compiled(sqlite.dialect())
        with sqlite3.connect(":memory:") as connection:
            for table in (tables.runs, tables.attempts):
                connection.execute(str(CreateTable(table).compile(dialect=sqlite.dialect())))
            plan = connection.execute(
                f"EXPLAIN QUERY PLAN {of_many_rows(compiled.sql, 8)}",
                [None] * 8 * len(compiled.order or ()),
            ).fetchall()
        connection.close()
        told = " ".join(row[3] for row in plan)
        assert "SEARCH" in told
        assert "SCAN attempts" not in told
        assert "SCAN runs" not in told


@pytest.mark.parametrize("count", [1, 2, 3, AT_ONCE, AT_ONCE + 1])
def test_a_statement_over_a_list_finds_each_once(
    with_database: Callable[..., None], table: sa.Table, count: int
) -> None:
    by_word = PreparedIn(lambda ids: sa.select(table.c.number).where(table.c.word.in_(ids)))

    async def test(database: Database) -> None:
        def use_case(tx: Tx) -> list[int]:
            tx.connection.execute(
                table.insert(),
                [{"number": n, "word": f"w{n}", "parent": None} for n in range(count + 5)],
            )
            return sorted(row[0] for row in by_word.rows(tx.connection, words))

        words = [f"w{n}" for n in range(count)]
        assert await database.write(use_case) == list(range(count))

    with_database(test)


def test_a_list_inside_a_statement_must_be_text(
    with_database: Callable[..., None], table: sa.Table
) -> None:
    statement = Prepared(sa.select(table).where(table.c.number.in_([1, 2])))

    async def test(database: Database) -> None:
        with pytest.raises(AssertionError, match="must be parameters"):
            await database.read(lambda c: statement.rows(c, {}))

    with_database(test)
