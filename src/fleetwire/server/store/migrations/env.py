"""Alembic's environment: it migrates the connection that `upgrade` hands over, and no other."""

from alembic import context

from fleetwire.server.store import tables

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=tables.metadata,
    # SQLite cannot alter most of a table: migrations copy it ("batch").
    render_as_batch=connection.dialect.name == "sqlite",
)
# The caller holds the transaction (`Shell.migration`), so all migrations are one commit.
context.run_migrations()
