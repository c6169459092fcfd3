"""Deleting what has been kept long enough. Each call is one short transaction: the record goes on
working meanwhile.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from fleetwire.core import retention as rules
from fleetwire.server.store import Connection, retention
from fleetwire.server.store.engine import Tx

LOOKED_AT_ONCE: Final = 1000
ROWS_AT_ONCE: Final = 2000
"""About what one transaction deletes: some tens of milliseconds of the writer."""


class Old(NamedTuple):
    """Runs that may go, of those that were looked at; `after` is where to look next, None where
    all that could be old enough have been seen.
    """

    runs: list[str]
    after: str | None


def old_runs(connection: Connection, *, after: str, cutoff: int) -> Old:
    """Look at the next ended runs, oldest first."""
    page = retention.ended_runs(connection, after=after, limit=LOOKED_AT_ONCE)
    old = [
        run.id
        for run in page
        if rules.run_may_go(ended_at=run.ended_at, unsettled=run.unsettled, cutoff=cutoff)
    ]
    # A run ends after it was made, so none behind a younger one can be old enough.
    is_last = len(page) < LOOKED_AT_ONCE or page[-1].created_at >= cutoff
    return Old(old, None if is_last else page[-1].id)


def delete_runs(tx: Tx, runs: list[str]) -> int:
    """Delete the first of these runs, as many as fit into one transaction; return how many are
    gone. One with a long story loses that first, and goes with a later call.
    """
    rows = 0
    for gone, run_id in enumerate(runs):
        if rows >= ROWS_AT_ONCE:
            return gone
        lines = retention.delete_lines(tx.connection, run_id, ROWS_AT_ONCE)
        rows += lines
        if lines >= ROWS_AT_ONCE:
            return gone
        rows += retention.delete_run(tx.connection, run_id)
        tx.nudge("runs")
    return len(runs)


def delete_events(tx: Tx, before: int) -> int:
    """Delete some of the lines about nodes and the system that are older; return how many."""
    return retention.delete_events(tx.connection, before, ROWS_AT_ONCE)


def segment_may_go(connection: Connection, segment: str, cutoff: int) -> bool:
    """Say whether nobody needs a segment any more (5.10)."""
    first, last = rules.ids_of(segment)
    return retention.is_done_with(connection, segment, first=first, last=last, cutoff=cutoff)
