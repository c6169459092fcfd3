"""Where a node's spool begins, and the hole that a restored log store leaves below it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns that an older server leaves alone."""
    op.add_column(
        "attempts", sa.Column("log_begins", sa.BigInteger(), nullable=False, server_default="0")
    )
    op.add_column("attempts", sa.Column("log_hole", sa.BigInteger(), nullable=True))
