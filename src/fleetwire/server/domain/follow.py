"""Where the logs of a run's attempts are."""

from __future__ import annotations

from fleetwire.server.store import Connection, runs


def segments(connection: Connection, run_id: str) -> dict[str, str]:
    """Return the segment of each attempt of a run; it never changes (5.10)."""
    rows = runs.tasks_of(connection, run_id)
    if any(row.number > 1 for row in rows):
        rows += runs.earlier_of(connection, run_id)
    return {row.attempt: row.segment for row in rows}
