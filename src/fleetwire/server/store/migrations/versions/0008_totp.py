"""Secrets of second factors are encrypted: those that stand readable are by the server's start,
which has the key (`domain.encrypted`).
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make place for what is encrypted, and let what is readable go."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute(
            sa.text("PRAGMA secure_delete = ON")
        )  # the table is copied, and the old one goes
    with op.batch_alter_table("totps") as totps:
        totps.alter_column("secret", existing_type=sa.String(64), nullable=True)
        totps.add_column(sa.Column("key_id", sa.String(16), nullable=True))
        totps.add_column(sa.Column("nonce", sa.LargeBinary(), nullable=True))
        totps.add_column(sa.Column("data", sa.LargeBinary(), nullable=True))
