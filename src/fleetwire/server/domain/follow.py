"""Where the logs of a run's tasks are."""

from __future__ import annotations

from fleetwire.server.store import Connection, runs


def segments(connection: Connection, run_id: str) -> dict[str, str]:
    """Return the segment of each task's latest attempt, by attempt; it never changes (5.10)."""
    return {row.attempt: row.segment for row in runs.tasks_of(connection, run_id)}
