"""What a server asks its record again and again is found by an index that holds little, however
much was ever run: a sweep that walks through all attempts would wait longer each day.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from fleetwire.core.retention import Keep
from fleetwire.server import store
from fleetwire.server.loops.proof import ProofLoop
from fleetwire.server.loops.retention import RetentionLoop
from fleetwire.server.loops.secrets import SecretsLoop
from fleetwire.server.store import runs, tables
from fleetwire.server.store.engine import Database
from fleetwire.server.store.prepared import Prepared, PreparedIn
from fleetwire.testing.heart import Heart, Serve

DIALECT = sqlite.dialect()
GROWING = "(attempts|tasks|runs|decisions)"
# All of a table, unless by an index of a part of it; or all beyond a key.
WALK = re.compile(
    rf"SCAN {GROWING}(?! USING (COVERING )?INDEX ix_)"
    rf"|SEARCH {GROWING} USING (COVERING )?INDEX sqlite_autoindex_\w+ \(id[<>]"
)


@contextmanager
def statements(database: Database) -> Iterator[dict[str, Any]]:
    """Collect what this database is asked meanwhile, each once, with its parameters."""
    told: dict[str, Any] = {}

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        told.setdefault(statement, parameters)

    shell: Any = database._shell
    for engine in (shell._readers, shell._writers):
        event.listen(engine, "before_cursor_execute", note)
    yield told


def walks(path: Path, asked: dict[str, Any]) -> list[str]:
    """Return each step of a plan that goes through what only grows."""
    found = []
    with closing(sqlite3.connect(path)) as record:
        for statement, parameters in asked.items():
            plan = record.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
            found += [f"{step}: {statement}" for _, _, _, step in plan if WALK.match(step)]
    return found


async def work(one: Heart) -> None:
    for loop in (
        one.dispatch,
        one.leases,
        one.sealing,
        SecretsLoop(one.database),
        ProofLoop(one.database, clock=one.clock.wall),
        RetentionLoop(one.database, one.logs, Keep(), clock=one.clock.wall),
    ):
        await loop.round()


async def test_no_sweep_walks_through_all_that_was_ever_run(serve: Serve, tmp_path: Path) -> None:
    async with serve(loops=False) as one:
        node = await one.node("a")
        with statements(one.database) as asked:
            async with node.connected():
                run_id = await one.submit()
                await one.dispatch.round()
                await one.wait_run(run_id, lambda run: run.counts["succeeded"] == 1)
                await work(one)
        found = walks(tmp_path / "fleetwire.db", asked)
        # Retention pages through the oldest ended runs until the first that is kept.
        assert [each for each in found if "runs.state = ?" not in each] == []
        assert len(asked) > 15


@pytest.mark.parametrize("before", [None, "f"])
@pytest.mark.parametrize("within", [["one"], ["one", "two"]])
@pytest.mark.parametrize(
    ("state", "index"),
    [
        (None, "ix_runs_project_id_id"),
        ("ended", "ix_runs_project_id_id"),
        ("running", "ix_runs_state_id"),
        ("pending", "ix_runs_state_id"),
    ],
)
async def test_a_page_of_runs_is_found_by_the_index_that_leaves_few(
    serve: Serve,
    tmp_path: Path,
    state: str | None,
    index: str,
    within: list[str],
    before: str | None,
) -> None:
    async with serve(loops=False) as one:
        with statements(one.database) as asked:
            await one.database.read(
                lambda c: runs.page(c, before=before, limit=50, state=state, within=within)
            )
        (statement,) = [each for each in asked if "FROM runs" in each]
        with closing(sqlite3.connect(tmp_path / "fleetwire.db")) as record:
            plan = record.execute(f"EXPLAIN QUERY PLAN {statement}", asked[statement]).fetchall()
        steps = [step for *_, step in plan if " runs " in step]
        assert [step.split("INDEX ")[1].split()[0] for step in steps] == [
            "sqlite_autoindex_runs_1", index
        ]  # fmt: skip


def test_no_prepared_statement_does(tmp_path: Path) -> None:
    """Those stand in modules, and go to the driver past what listens above."""
    asked: dict[str, Any] = {}
    for module in pkgutil.iter_modules(store.__path__, "fleetwire.server.store."):
        for statement in vars(importlib.import_module(module.name)).values():
            compiled = None
            if isinstance(statement, Prepared):
                compiled = statement._compiled(DIALECT)
            elif isinstance(statement, PreparedIn):
                compiled = statement._compiled(DIALECT, 8)
            if compiled is not None:
                asked[compiled.sql] = [None] * len(compiled.order or ())
    assert len(asked) > 20
    path = tmp_path / "record.db"
    with closing(sqlite3.connect(path)) as record:
        for table in tables.metadata.sorted_tables:
            record.execute(str(CreateTable(table).compile(dialect=DIALECT)))
            for index in table.indexes:
                record.execute(str(CreateIndex(index).compile(dialect=DIALECT)))
    assert walks(path, asked) == []


def test_a_walk_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "record.db"
    with closing(sqlite3.connect(path)) as record:
        record.execute("CREATE TABLE attempts (id TEXT PRIMARY KEY, state TEXT)")
    by_key = "SELECT id FROM attempts WHERE id > ? ORDER BY id"
    asked = {"SELECT state FROM attempts": (), by_key: ("",)}
    assert len(walks(path, asked)) == len(asked)
    assert walks(path, {"SELECT state FROM attempts WHERE id = ?": ("",)}) == []
