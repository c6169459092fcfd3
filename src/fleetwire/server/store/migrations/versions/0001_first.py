"""The first schema."""

from alembic import op

from fleetwire.server.store import tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make every table."""
    tables.metadata.create_all(op.get_bind())
