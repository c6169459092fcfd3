"""Rows of attempts, on a real database."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy.dialects import sqlite

from fleetwire.core.attempts import Attempt
from fleetwire.core.happenings import Exited
from fleetwire.core.specs import RunRequest, Script
from fleetwire.server.domain import runs
from fleetwire.server.store import attempts
from fleetwire.server.store.attempts import AttemptRow
from fleetwire.testing.heart import SUBMITTER, Heart, Serve, new_id

EXIT = Exited(
    at=3, cause="exited", exit_code=0, signal=None, started_at=2, duration=1e-6, length=0,
    sha256="", leftovers=0, error=None,
)  # fmt: skip
OF_ATTEMPT: dict[str, Any] = {
    "state": "running", "wish": "stop", "epoch": 7, "node": "a-node", "offered": True,
    "reason": "because", "outcome": "lost", "started_at": 5, "exit": EXIT, "late_exit": EXIT,
}  # fmt: skip
BESIDE: dict[str, Any] = {
    "declines": 2, "not_before": 9, "incarnation": "first", "stop_grace": 0.5, "signature": b"s",
    "envelope": "{}", "assigned_at": 4, "lost_after": 8, "ended_at": 6, "log_state": "gone",
    "log_length": 10, "log_sha256": "hash", "log_begins": 11, "log_hole": 12,
}  # fmt: skip
NEVER = {"id", "task_id", "run_id", "target", "number", "queue_deadline", "segment"}


async def two_rows(one: Heart) -> list[AttemptRow]:
    for name in "ab":
        await one.identity(name)
    made = await one.database.write(
        lambda tx: runs.submit(
            tx, RunRequest(Script("true"), nodes=("a", "b")), user=SUBMITTER, ids=new_id,
            idempotency=None, segment="2026-11-20",
        )
    )  # fmt: skip
    return await one.database.write(lambda tx: attempts.of_run(tx.connection, made.run_id))


def with_changes(row: AttemptRow, names: set[str]) -> AttemptRow:
    of_attempt = {name: value for name, value in OF_ATTEMPT.items() if name in names}
    beside = {name: value for name, value in BESIDE.items() if name in names}
    return replace(row, attempt=replace(row.attempt, **of_attempt), **beside)


async def test_whatever_changes_is_what_is_stored(serve: Serve) -> None:
    changing = set(OF_ATTEMPT) | set(BESIDE)
    assert changing | NEVER == {*AttemptRow.__struct_fields__, *Attempt.__struct_fields__} - {
        "attempt"
    }
    async with serve(loops=False) as one:
        first, second = await two_rows(one)
        # Each alone, then all together; what two rows change need not be the same.
        for names in [*({name} for name in sorted(changing)), changing]:
            first_now = await one.database.read(lambda c: attempts.look(c, [first.id])[first.id])
            after = with_changes(first_now, names)
            other = replace(second, log_begins=second.log_begins + 1)
            await one.database.write(
                lambda tx, pairs=[(first_now, after), (second, other)]: attempts.save(
                    tx.connection, pairs
                )
            )
            second = other
            both = [first.id, second.id]
            stored = await one.database.read(lambda c, ids=both: attempts.look(c, ids))
            assert stored == {first.id: after, other.id: other}


async def test_a_row_that_was_not_as_it_was_read_is_not_changed(serve: Serve) -> None:
    async with serve(loops=False) as one:
        row, _ = await two_rows(one)
        wrong = replace(row, attempt=replace(row.attempt, epoch=1))
        with pytest.raises(AssertionError, match="1 attempts were read to change, 0 were there"):
            await one.database.write(
                lambda tx: attempts.save(tx.connection, [(wrong, replace(wrong, declines=1))])
            )


@pytest.mark.parametrize("statement", [attempts._TO_TELL, attempts._GIVEN_UP])
def test_what_a_partial_index_is_about_stands_in_the_statement(statement: Any) -> None:
    """Compared with a value, SQLite would plan the whole statement anew each time."""
    sql = statement._compiled(sqlite.dialect(), 4).sql
    _, _, condition = sql.partition("WHERE")
    for column in ("state", "wish", "log_state"):
        assert f"attempts.{column} = ?" not in condition
