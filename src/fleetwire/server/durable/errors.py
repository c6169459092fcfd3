"""What can go wrong between a statement and the disk, in the words a caller can act on."""

from __future__ import annotations

from fleetwire.core.errors import FleetwireError


class DatabaseUnavailable(FleetwireError):
    """The database could not be reached or was busy; nothing was stored, trying later is safe."""

    code = "database-unavailable"


class DatabaseClosed(FleetwireError):
    """The server is shutting down; nothing was stored."""

    code = "database-closed"


class CommitFailed(FleetwireError):
    """The database refused the COMMIT of a whole group; nothing of the group was stored."""

    code = "commit-failed"


class CommitUnknown(FleetwireError):
    """The connection broke during COMMIT: the group is stored wholly or not at all.

    The caller must read again before it acts; nothing retries by itself (architecture 5.11).
    """

    code = "commit-unknown"


class StorageFull(FleetwireError):
    """The disk of the database is full; nothing was stored (the API answers 507)."""

    code = "storage-full"


class DatabaseFailed(FleetwireError):
    """The disk failed or the file is damaged: the process must end (promise P15).

    What the failed commit held is known only after the restart, which replays the journal.
    """

    code = "database-failed"
