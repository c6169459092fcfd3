"""The log store: every byte of output once and in order, in segments of one day.

``base`` is what callers see, ``store`` the one writer thread and the readers, ``chunks`` the
body's format, ``reading`` and ``search`` the algorithms, ``sqlite`` and ``postgres`` the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fleetwire.server.logs.store import SegmentedLogs
from fleetwire.server.nudges.base import Nudges

__all__ = ["open_logs"]


def open_logs(where: str | Path, *, nudges: Nudges, clock: Callable[[], int]) -> SegmentedLogs:
    """Open the log store in a folder (SQLite) or at a ``postgresql://`` URL.

    `clock` gives wall time in microseconds since 1970. Blocks. Raises `DatabaseUnavailable`.
    """
    if str(where).startswith(("postgresql://", "postgres://")):
        # Imported here: psycopg costs memory and time that SQLite's users should not pay.
        from fleetwire.server.logs.postgres import PostgresBackend  # noqa: PLC0415 - see above

        return SegmentedLogs(PostgresBackend(str(where)), nudges, clock)

    from fleetwire.server.logs.sqlite import SqliteBackend  # noqa: PLC0415 - see above

    return SegmentedLogs(SqliteBackend(Path(where)), nudges, clock)
