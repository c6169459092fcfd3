"""Who may become a node, and whether it is still the same: what enrolment tokens are bound to,
every use of one, and the mark of each node's last link.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns that an older server leaves alone, and a table."""
    op.add_column(
        "nodes", sa.Column("mark", sa.String(length=64), nullable=False, server_default="")
    )
    op.add_column("nodes", sa.Column("steps", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column(
        "enrolment_tokens", sa.Column("name_pattern", sa.String(length=128), nullable=True)
    )
    op.add_column("enrolment_tokens", sa.Column("network", sa.String(length=64), nullable=True))
    op.add_column(
        "enrolment_tokens",
        sa.Column("approval", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    op.create_table(
        "enrolment_uses",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("token_id", sa.String(length=36), nullable=True),
        sa.Column("project_id", sa.String(length=36), nullable=True),
        sa.Column("node_id", sa.String(length=36), nullable=True),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("address", sa.String(length=256), nullable=True),
        sa.Column("outcome", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_enrolment_uses")),
    )
    op.create_index(
        op.f("ix_enrolment_uses_token_id"), "enrolment_uses", ["token_id"], unique=False
    )
