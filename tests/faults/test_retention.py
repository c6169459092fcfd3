"""Retention by the real server, on a record that was aged while it was down."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from fleetwire.client.errors import Gone
from fleetwire.testing.lab import Lab, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.slow]

DAYS = 40
AGED_US = DAYS * 24 * 3600 * 1_000_000


def age(lab: Lab) -> str:
    """Make all that is stored 40 days older; return the name of the segment then."""
    (segment,) = (lab.data / "logs").glob("*.db")
    old = "2001-02-03"
    segment.rename(segment.with_name(f"{old}.db"))
    with closing(sqlite3.connect(lab.data / "fleetwire.db")) as record, record:
        record.execute(
            "UPDATE runs SET created_at = created_at - ?, ended_at = ended_at - ?",
            (AGED_US, AGED_US),
        )
        record.execute("UPDATE attempts SET ended_at = ended_at - ?, segment = ?", (AGED_US, old))
    return old


def test_an_old_log_goes_and_its_reader_is_told_why(lab: Lab) -> None:
    lab.start_agent()
    run = lab.submit("echo hello\n")
    lab.client.wait(run.id)
    (task,) = run.tasks or []
    assert lab.server is not None
    lab.server.stop()
    segment = age(lab)
    lab.start_server()
    file = lab.data / "logs" / f"{segment}.db"
    wait_until(lambda: not file.exists(), "the segment to go")
    with pytest.raises(Gone, match="kept for 30 days, which are over"):
        lab.client.log(task.attempt)
    with pytest.raises(Gone, match="kept for 30 days"):
        lab.client.log_tail(task.attempt, 5)
    assert lab.client.run(run.id).outcome == "succeeded"
    shown = lab.cli("runs", "logs", run.id)
    assert "kept for 30 days" in shown.stderr
    again = lab.submit("echo again\n")
    assert lab.client.wait(again.id).outcome == "succeeded"
