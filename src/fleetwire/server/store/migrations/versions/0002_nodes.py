"""Nodes have a history: since when a link is as it is, how often it came back, which life of the
agent and the machine it was, and the names of nodes that were deleted.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns that an older server leaves alone, a table and an index."""
    op.add_column("nodes", sa.Column("link_since", sa.BigInteger(), nullable=True))
    op.add_column(
        "nodes", sa.Column("reconnects", sa.Integer(), nullable=False, server_default="0")
    )
    op.add_column("nodes", sa.Column("life", sa.Text(), nullable=True))
    op.create_table(
        "former_nodes",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_former_nodes")),
    )
    op.create_index(
        "ix_decisions_of_nodes",
        "decisions",
        ["node_id", "id"],
        unique=False,
        sqlite_where=sa.text("run_id IS NULL"),
        postgresql_where=sa.text("run_id IS NULL"),
    )
