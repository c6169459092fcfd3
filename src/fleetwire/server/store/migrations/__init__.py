"""The schema's history, run by `Database.open`: there is no alembic.ini and no command to know.

`versions/` holds one file per change, each frozen once released; `tables.metadata` is the newest
state, and a test compares the two on both databases.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy

from fleetwire.core.errors import FleetwireError


class SchemaTooNew(FleetwireError):
    """The database was written by a newer Fleetwire, so this one must not touch it."""

    code = "schema-too-new"


def upgrade(connection: sqlalchemy.Connection) -> None:
    """Bring the schema to the newest revision, inside the transaction that the caller holds.

    Raises `SchemaTooNew`. Running it again changes nothing.
    """
    # Alembic is slow to import, so it is only where there is something to do.
    present = _present(connection)
    if present == _newest():
        return
    from alembic import command  # noqa: PLC0415 - see above
    from alembic.config import Config  # noqa: PLC0415 - see above
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - see above

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if present is not None and present not in known:
        msg = (
            f"The database has the schema {present}, which this version of Fleetwire does not "
            "know, because a newer one has used it."
        )
        raise SchemaTooNew(msg, hint="Install the newer version, or restore an older backup.")
    command.upgrade(config, "head")


def _present(connection: sqlalchemy.Connection) -> str | None:
    if not sqlalchemy.inspect(connection).has_table("alembic_version"):
        return None
    version: str | None = connection.scalar(
        sqlalchemy.text("SELECT version_num FROM alembic_version")
    )
    return version


def _newest() -> str:
    """Return the newest revision: file names begin with it, and revisions are numbered."""
    names = (file.name for file in (Path(__file__).parent / "versions").glob("[0-9]*.py"))
    return max(names).partition("_")[0]
