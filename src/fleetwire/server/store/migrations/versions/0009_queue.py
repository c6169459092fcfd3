"""What waits, by id: a page of it was found by walking through all that was ever run."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_PENDING = sa.text("state = 'pending'")
_FRESH = sa.text("state = 'pending' AND reason IS NULL")


def upgrade() -> None:
    """Replace an index by two; an older server needs neither."""
    op.create_index(
        "ix_attempts_queue",
        "attempts",
        ["id"],
        sqlite_where=_PENDING,
        postgresql_where=_PENDING,
    )
    op.create_index(
        "ix_attempts_unread",
        "attempts",
        ["state", "id"],
        sqlite_where=_FRESH,
        postgresql_where=_FRESH,
    )
    op.drop_index("ix_attempts_fresh", "attempts")
