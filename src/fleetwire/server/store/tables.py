"""The tables of the main database, as SQLAlchemy Core metadata: common SQL only.

Times are wall time in microseconds since 1970 (BigInteger), ids are UUIDv7 text, JSON values
are text written by msgspec. Log bytes live elsewhere (`server.logs`). The migrations create
exactly this; a test compares them.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

from fleetwire.core.access import DEFAULT_PROJECT

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# Facts of the cluster: see store.meta.
meta = Table(
    "meta",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

# Everything else belongs to a project. There is always core.access.DEFAULT_PROJECT: what is stored
# by a server that knows of no projects is its own.
projects = Table(
    "projects",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(128), nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
)

# `role` is `admin` for a system admin, else `user`: what somebody may in a project stands in
# `project_roles`. `password_hash` is empty for who logs in elsewhere only (`identities`).
users = Table(
    "users",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(128), nullable=False, unique=True),
    Column("password_hash", Text, nullable=False),
    Column("role", String(32), nullable=False),
    Column("disabled", Boolean, nullable=False, default=False),
    Column("created_at", BigInteger, nullable=False),
)

# The roles and grants of core.access.ROLES, one row each.
project_roles = Table(
    "project_roles",
    metadata,
    Column("user_id", String(36), ForeignKey("users.id"), primary_key=True),
    Column("project_id", String(36), ForeignKey("projects.id"), primary_key=True, index=True),
    Column("role", String(32), primary_key=True),
)

# Who somebody is at an OpenID provider.
identities = Table(
    "identities",
    metadata,
    Column("issuer", String(255), primary_key=True),
    Column("subject", String(255), primary_key=True),
    Column("user_id", String(36), ForeignKey("users.id"), nullable=False, index=True),
    Column("created_at", BigInteger, nullable=False),
)

# The second factor (core.totp). It counts from `confirmed_at` on; `last_step` is the step whose
# code was used last, so that no code is good twice. The secret is encrypted with the master key
# `key_id`; `secret` is one from before revision 0008, until a server starts (domain.encrypted).
totps = Table(
    "totps",
    metadata,
    Column("user_id", String(36), ForeignKey("users.id"), primary_key=True),
    Column("secret", String(64)),
    Column("created_at", BigInteger, nullable=False),
    Column("confirmed_at", BigInteger),
    Column("last_step", BigInteger, nullable=False),
    Column("key_id", String(16)),
    Column("nonce", LargeBinary),
    Column("data", LargeBinary),
)

recovery_codes = Table(
    "recovery_codes",
    metadata,
    Column("user_id", String(36), ForeignKey("users.id"), primary_key=True),
    Column("hash", String(64), primary_key=True),
)

# Secrets people show are stored as SHA-256 of 256 random bits, never as they are. `id` names a
# session to its owner, who sees `address` and `browser` (as it calls itself) of each.
sessions = Table(
    "sessions",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("user_id", String(36), ForeignKey("users.id"), nullable=False, index=True),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("id", String(36)),
    Column("address", String(64)),
    Column("browser", String(256)),
)

# `project_id` and `permissions` (JSON) are core.access.Scope.
tokens = Table(
    "tokens",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("user_id", String(36), ForeignKey("users.id"), nullable=False, index=True),
    Column("name", String(128), nullable=False),
    Column("hash", String(64), nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("last_used_at", BigInteger),
    Column("project_id", String(36), ForeignKey("projects.id")),
    Column("permissions", Text),
)

enrolment_tokens = Table(
    "enrolment_tokens",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("hash", String(64), nullable=False, unique=True),
    Column("labels", Text, nullable=False),
    Column("created_by", String(36), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("used_at", BigInteger),
    Column("used_by", String(36)),
    Column("project_id", String(36), nullable=False, server_default=DEFAULT_PROJECT),
    Column("name_pattern", String(128)),
    Column("network", String(64)),
    Column("approval", Boolean, nullable=False, default=False, server_default=false()),
)

# Every time that somebody showed an enrolment token, taken or refused: `token_id` is null where no
# token has that hash. The audit has these as well; this is the list that a project's admin reads.
enrolment_uses = Table(
    "enrolment_uses",
    metadata,
    Column(
        "id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    ),
    Column("at", BigInteger, nullable=False),
    Column("token_id", String(36), index=True),
    Column("project_id", String(36)),
    Column("node_id", String(36)),
    Column("name", String(128), nullable=False),
    Column("address", String(256)),
    Column("outcome", String(255), nullable=False),
)

# `admin` is what an administrator decided and is never overwritten by a heartbeat. `link_epoch`
# grows with every accepted hello (5.6). `revision` is of Desired, `applied` what the node has
# confirmed. Whether a node is online is known to the process that holds its link; the columns
# `last_seen_at` and `link` are what was last written of it, for lists and for other processes, and
# so are `link_since`, when `link` last became what it is, and `reconnects`: how often the link came
# again lately, above 0 only while it counts as flapping. `life` is the agent's word on itself and
# its machine at the last hello (core.absences.Life), `features` what it offered there and this
# server knows, as JSON (protocol.versions). `mark` and `steps` are core.clones.Stood.
nodes = Table(
    "nodes",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("signing_key", LargeBinary, nullable=False),
    Column("sealing_key", LargeBinary, nullable=False),
    Column("labels", Text, nullable=False),
    Column("capacity", Integer, nullable=False),
    Column("admin", String(16), nullable=False, default="active"),
    Column("link", String(16), nullable=False, default="offline"),
    Column("link_since", BigInteger),
    Column("reconnects", Integer, nullable=False, default=0, server_default="0"),
    Column("link_epoch", BigInteger, nullable=False, default=0),
    Column("incarnation", String(64), nullable=False),
    Column("boot_id", String(64)),
    Column("revision", BigInteger, nullable=False, default=0),
    Column("applied", BigInteger, nullable=False, default=0),
    Column("agent_version", String(256)),
    Column("address", String(256)),
    Column("clock_skew", BigInteger),
    Column("inventory", Text),
    Column("life", Text),
    Column("features", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("last_seen_at", BigInteger),
    Column("mark", String(64), nullable=False, default="", server_default=""),
    Column("steps", BigInteger, nullable=False, default=0, server_default="0"),
    Column("project_id", String(36), nullable=False, server_default=DEFAULT_PROJECT),
    # A name that is taken must not tell what other projects have.
    UniqueConstraint("project_id", "name"),
)

# Nodes that were deleted: what ran there keeps the name of where it ran.
former_nodes = Table(
    "former_nodes",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("deleted_at", BigInteger, nullable=False),
)

# An immutable snapshot of what was asked, and the fold of its tasks as last computed: `counts`
# by state, `unsettled` how many of their logs are neither sealed nor given up.
runs = Table(
    "runs",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(128)),
    Column("request", Text, nullable=False),
    Column("wish", String(8), nullable=False, default="run"),
    Column("state", String(16), nullable=False),
    Column("outcome", String(16)),
    Column("counts", Text, nullable=False),
    Column("unsettled", Integer, nullable=False),
    Column("created_by", String(36), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("idempotency_key", String(255)),
    Column("idempotency_hash", String(64)),
    Column("project_id", String(36), nullable=False, server_default=DEFAULT_PROJECT),
    UniqueConstraint("created_by", "idempotency_key"),
    Index("ix_runs_state_id", "state", "id"),
    Index("ix_runs_project_id_id", "project_id", "id"),
)

tasks = Table(
    "tasks",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("run_id", String(36), ForeignKey("runs.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("node_id", String(36)),
    Column("attempt_id", String(36), nullable=False),
    UniqueConstraint("run_id", "position"),
)

# The columns up to `late_exit` are core.attempts.Attempt. `target` is the node that the task is
# bound to (a copy of tasks.node_id, so that dispatch finds a node's work by index).
# `incarnation` is the node's when the order was offered (5.3); `stop_grace` the grace a stop
# asked for, in seconds. After a node has declined it, it is not given again before
# `not_before`; `declines` counts. `log_state`:
#
#     open      bytes may still come
#     again     the hash did not fit, so the log is fetched from 0 once more (5.7)
#     gone      the node no longer has the spool; what is stored is all there will be
#     sealed, damaged, missing     settled
#
# `log_length` is what the node promised until the log is settled, then what is stored.
# `log_begins` is where the node's spool begins, as far as it has said. Where what is stored ended
# below that (a restored log store), `log_hole` is where it ended: from there up to `log_begins`
# the log is missing, and a gap stands in its place.
#
# The partial indexes keep every sweep's cost to what is unfinished, however much is stored.
_PENDING = text("state = 'pending'")
_FRESH = text("state = 'pending' AND reason IS NULL")
_LIVE = text("state IN ('assigned', 'running')")
_UNSETTLED = text("log_state IN ('open', 'again', 'gone')")

attempts = Table(
    "attempts",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("task_id", String(36), ForeignKey("tasks.id"), nullable=False, index=True),
    Column("run_id", String(36), nullable=False, index=True),
    Column("target", String(36)),
    Column("number", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("wish", String(8), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("node_id", String(36)),
    Column("offered", Boolean, nullable=False),
    Column("reason", Text),
    Column("outcome", String(16)),
    Column("started_at", BigInteger),
    Column("exit", Text),
    Column("late_exit", Text),
    Column("incarnation", String(64)),
    Column("stop_grace", Float),
    Column("signature", LargeBinary),
    Column("envelope", Text),
    Column("queue_deadline", BigInteger, nullable=False),
    Column("declines", Integer, nullable=False),
    Column("not_before", BigInteger),
    Column("assigned_at", BigInteger),
    Column("lost_after", BigInteger),
    Column("ended_at", BigInteger),
    Column("segment", String(16), nullable=False),
    Column("log_state", String(16), nullable=False),
    Column("log_length", BigInteger),
    Column("log_sha256", String(64)),
    Column("log_begins", BigInteger, nullable=False, server_default="0"),
    Column("log_hole", BigInteger),
    Index("ix_attempts_pending", "target", "id", sqlite_where=_PENDING, postgresql_where=_PENDING),
    # By id; where both would do, SQLite takes the one that also begins with what is asked for.
    Index("ix_attempts_queue", "id", sqlite_where=_PENDING, postgresql_where=_PENDING),
    Index("ix_attempts_unread", "state", "id", sqlite_where=_FRESH, postgresql_where=_FRESH),
    Index("ix_attempts_live", "node_id", "wish", sqlite_where=_LIVE, postgresql_where=_LIVE),
    Index(
        "ix_attempts_unsettled",
        "node_id",
        "state",
        sqlite_where=_UNSETTLED,
        postgresql_where=_UNSETTLED,
    ),
)

# Values are encrypted with the master key `key_id` (server.master_key), never in clear.
secrets = Table(
    "secrets",
    metadata,
    Column("project_id", String(36), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("key_id", String(16), nullable=False),
    Column("nonce", LargeBinary, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("updated_by", String(36), nullable=False),
    Column("last_used_at", BigInteger),
)

# A stop that a node is to be told: of an attempt that is wished to stop, or of an older epoch of
# one that still runs there. `grace` is in seconds, NULL for the spec's own. Whoever wishes writes
# the row without a signature; the loop `stops` signs it (core.stops), no gateway has a key to.
_UNSIGNED = text("signature IS NULL")

stop_orders = Table(
    "stop_orders",
    metadata,
    Column("attempt_id", String(36), primary_key=True),
    Column("node_id", String(36), primary_key=True),
    Column("epoch", BigInteger, primary_key=True),
    Column("run_id", String(36), nullable=False),
    Column("grace", Float),
    Column("key_id", String(16)),
    Column("envelope", Text),
    Column("signature", LargeBinary),
    Index(
        "ix_stop_orders_unsigned",
        "attempt_id",
        sqlite_where=_UNSIGNED,
        postgresql_where=_UNSIGNED,
    ),
)

# What an order gives its task, sealed for the node: only that node can read it. It goes when the
# attempt has begun (loop `secrets`).
sealed_secrets = Table(
    "sealed_secrets",
    metadata,
    Column("attempt_id", String(36), primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
)

# Why things are as they are, written where it was decided (law 9): the story of an attempt; with
# `node_id` alone what happened to a node, with neither what happened to the whole system.
_OF_NODES = text("run_id IS NULL")

decisions = Table(
    "decisions",
    metadata,
    Column(
        "id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    ),
    Column("at", BigInteger, nullable=False),
    Column("run_id", String(36), index=True),
    Column("attempt_id", String(36), index=True),
    Column("node_id", String(36)),
    Column("epoch", BigInteger),
    Column("text", Text, nullable=False),
    Index(
        "ix_decisions_of_nodes",
        "node_id",
        "id",
        sqlite_where=_OF_NODES,
        postgresql_where=_OF_NODES,
    ),
)

# The audit (core.audit). `audit_chains` holds the last number and hash of each chain, and is what
# servers that append at once wait for; `audit_entries` has core.audit.Entry, a column a field, and
# its hash. A chain is called by a project's id, or `system`; it stays when the project is deleted.
audit_chains = Table(
    "audit_chains",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
)

audit_entries = Table(
    "audit_entries",
    metadata,
    Column(
        "id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    ),
    Column("chain_id", String(36), nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("action", String(32), nullable=False),
    Column("actor_kind", String(16), nullable=False),
    Column("actor", Text, nullable=False),
    Column("actor_name", Text, nullable=False),
    Column("via", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("target_kind", String(32), nullable=False),
    Column("target", Text, nullable=False),
    Column("target_name", Text, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("code", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    UniqueConstraint("chain_id", "number"),
    Index("ix_audit_entries_target", "target"),
)

# core.audit.SignedCheckpoint; `cut` stands in the place of what retention has deleted.
audit_checkpoints = Table(
    "audit_checkpoints",
    metadata,
    Column("chain_id", String(36), primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("cut", Boolean, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("key", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
)
