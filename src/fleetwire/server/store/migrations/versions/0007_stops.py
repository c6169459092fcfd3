"""Stops: the orders by which nodes are told to stop, signed."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a table, with what is wished to stop already: it is signed soon after the start."""
    op.create_table(
        "stop_orders",
        sa.Column("attempt_id", sa.String(length=36), nullable=False),
        sa.Column("node_id", sa.String(length=36), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("grace", sa.Float(), nullable=True),
        sa.Column("key_id", sa.String(length=16), nullable=True),
        sa.Column("envelope", sa.Text(), nullable=True),
        sa.Column("signature", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("attempt_id", "node_id", "epoch", name=op.f("pk_stop_orders")),
    )
    unsigned = sa.text("signature IS NULL")
    op.create_index(
        "ix_stop_orders_unsigned",
        "stop_orders",
        ["attempt_id"],
        unique=False,
        sqlite_where=unsigned,
        postgresql_where=unsigned,
    )
    op.execute(
        sa.text(
            "INSERT INTO stop_orders (attempt_id, node_id, epoch, run_id, grace) "
            "SELECT id, node_id, epoch, run_id, stop_grace FROM attempts "
            "WHERE wish = 'stop' AND node_id IS NOT NULL AND "
            "(state IN ('assigned', 'running') OR (state = 'lost' AND late_exit IS NULL))"
        )
    )
