"""Projects, and people with roles in them: what was there before belongs to the project `default`.
Second factors, identities at OpenID providers, scopes of tokens, and sessions that have names.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

DEFAULT = "00000000-0000-7000-8000-000000000000"
# What a founder has (core.access.FOUNDER, as of this revision).
FOUNDER = ("project-admin", "auditor", "terminal", "file-write", "use-secret")


def upgrade() -> None:
    """Add tables, and columns that an older server leaves alone."""
    _projects()
    _people()
    for table in ("nodes", "runs", "enrolment_tokens"):
        op.add_column(
            table,
            sa.Column("project_id", sa.String(36), nullable=False, server_default=DEFAULT),
        )
    op.create_index("ix_runs_project_id_id", "runs", ["project_id", "id"], unique=False)
    with op.batch_alter_table("nodes") as nodes:
        nodes.drop_constraint("uq_nodes_name", type_="unique")
        nodes.create_unique_constraint("uq_nodes_project_id_name", ["project_id", "name"])


def _projects() -> None:
    projects = op.create_table(
        "projects",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
        sa.UniqueConstraint("name", name=op.f("uq_projects_name")),
    )
    op.bulk_insert(projects, [{"id": DEFAULT, "name": "default", "created_at": 0}])
    op.create_table(
        "project_roles",
        sa.Column("user_id", sa.String(36), nullable=False),
        sa.Column("project_id", sa.String(36), nullable=False),
        sa.Column("role", sa.String(32), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_project_roles_user_id"),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name="fk_project_roles_project_id"
        ),
        sa.PrimaryKeyConstraint("user_id", "project_id", "role", name="pk_project_roles"),
    )
    op.create_index("ix_project_roles_project_id", "project_roles", ["project_id"], unique=False)
    # Until now every user could do everything.
    for role in FOUNDER:
        op.execute(
            sa.text(
                "INSERT INTO project_roles (user_id, project_id, role) "
                "SELECT id, CAST(:project AS VARCHAR(36)), CAST(:role AS VARCHAR(32)) "
                "FROM users WHERE role = 'admin'"
            ).bindparams(project=DEFAULT, role=role)
        )


def _people() -> None:
    op.create_table(
        "identities",
        sa.Column("issuer", sa.String(255), nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("user_id", sa.String(36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_identities_user_id"),
        sa.PrimaryKeyConstraint("issuer", "subject", name="pk_identities"),
    )
    op.create_index("ix_identities_user_id", "identities", ["user_id"], unique=False)
    op.create_table(
        "totps",
        sa.Column("user_id", sa.String(36), nullable=False),
        sa.Column("secret", sa.String(64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("confirmed_at", sa.BigInteger(), nullable=True),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_totps_user_id"),
        sa.PrimaryKeyConstraint("user_id", name="pk_totps"),
    )
    op.create_table(
        "recovery_codes",
        sa.Column("user_id", sa.String(36), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_recovery_codes_user_id"),
        sa.PrimaryKeyConstraint("user_id", "hash", name="pk_recovery_codes"),
    )
    op.add_column("sessions", sa.Column("id", sa.String(36), nullable=True))
    op.add_column("sessions", sa.Column("address", sa.String(64), nullable=True))
    op.add_column("sessions", sa.Column("browser", sa.String(256), nullable=True))
    with op.batch_alter_table("tokens") as tokens:
        tokens.add_column(sa.Column("project_id", sa.String(36), nullable=True))
        tokens.add_column(sa.Column("permissions", sa.Text(), nullable=True))
        tokens.create_foreign_key("fk_tokens_project_id", "projects", ["project_id"], ["id"])
