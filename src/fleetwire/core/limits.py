"""Every limit of the system, in one place. docs/limits.md explains each; tests try each at
itself and one above. Sizes are bytes, times seconds, unless the name says otherwise.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * 1024

# What people send.
SELECTOR_BYTES: Final = 4 * KIB
SELECTOR_DEPTH: Final = 32
LABEL_KEY_CHARS: Final = 63
LABEL_VALUE_CHARS: Final = 255
LABELS_PER_NODE: Final = 64
NAME_CHARS: Final = 128
SCRIPT_BYTES: Final = 256 * KIB
ARGS: Final = 256
ARG_BYTES: Final = 16 * KIB
ENV_ENTRIES: Final = 256
ENV_KEY_CHARS: Final = 128
ENV_BYTES: Final = 64 * KIB
SPEC_BYTES: Final = 768 * KIB
SECRET_BYTES: Final = 32 * KIB
SECRET_LEAST_BYTES: Final = 8
SECRETS_BYTES: Final = 96 * KIB
SECRETS_PER_RUN: Final = 32
SCRIPTED_STEPS: Final = 1_000
NODES_PER_RUN: Final = 10_000
TIMEOUT_S: Final = 7 * 24 * 3600
TIMEOUT_DEFAULT_S: Final = 7200
GRACE_S: Final = 3600
GRACE_DEFAULT_S: Final = 10
QUEUE_TIMEOUT_S: Final = 30 * 24 * 3600
QUEUE_TIMEOUT_DEFAULT_S: Final = 24 * 3600
RETRY_COUNT: Final = 100
RETRY_BACKOFF_S: Final = 24 * 3600.0
RETRY_BACKOFF_DEFAULT_S: Final = 10.0
LOST_AFTER_MOST_S: Final = 30 * 24 * 3600.0
BODY_BYTES: Final = 1 * MIB
IDEMPOTENCY_KEY_CHARS: Final = 255
IDEMPOTENCY_KEEP_S: Final = 24 * 3600
PAGE_ITEMS: Final = 500
LOG_READ_BYTES: Final = 4 * MIB
LOG_LINES: Final = 10_000
LOG_LINE_SHOWN_BYTES: Final = 16 * KIB
LOG_SEARCH_CHARS: Final = 256
URL_BYTES: Final = 8 * KIB
HEAD_BYTES: Final = 64 * KIB
STREAMS_PER_USER: Final = 256
TOKENS_PER_USER: Final = 1000
SESSIONS_PER_USER: Final = 100
PASSWORD_LEAST_CHARS: Final = 10
PASSWORD_CHARS: Final = 1024
LOGIN_TRIES_PER_ACCOUNT: Final = 100
LOGIN_TRIES_PER_ADDRESS: Final = 50
LOGIN_TRIES_PER_ACCOUNT_AND_ADDRESS: Final = 10
HELLOS_AT_ONCE: Final = 1000
CODE_TRIES_PER_ACCOUNT: Final = 5

# What nodes send.
CONTROL_FRAME_BYTES: Final = 1 * MIB
CHUNK_PAYLOAD_BYTES: Final = 1 * MIB
CHUNK_PIECES: Final = 4096
CREDIT_BYTES: Final = 4 * MIB
INVENTORY_BYTES: Final = 64 * KIB
REASON_CHARS: Final = 1024
SERVER_KEYS: Final = 1000
OBSERVATIONS_PER_FRAME: Final = 1000
HAPPENINGS_PER_OBSERVATION: Final = 16
CAPACITY: Final = 10_000

# Beats and patience.
HEARTBEAT_S: Final = 10.0
OFFLINE_AFTER_S: Final = 90.0
FLAPPING_WITHIN_S: Final = 600.0
FLAPPING_RECONNECTS: Final = 5
STEADY_RECONNECTS: Final = 1
FLAPPING_COUNTED: Final = 100
CLOCK_SKEW_S: Final = 5.0
MASS_OFFLINE_WITHIN_S: Final = 60.0
MASS_OFFLINE_LEAST: Final = 10
LEASE_S: Final = 60.0
HELLO_WITHIN_S: Final = 10.0
PROOF_SLACK_S: Final = 300.0
LOST_AFTER_S: Final = 24 * 3600.0
HEAD_WITHIN_S: Final = 10.0
BODY_WITHIN_S: Final = 30.0
ANSWER_TAKEN_WITHIN_S: Final = 60.0
SESSION_S: Final = 7 * 24 * 3600
TOKEN_DEFAULT_S: Final = 90 * 24 * 3600
TOKEN_LONGEST_S: Final = 366 * 24 * 3600

# Room for what must be written on a full disk, of the server and of each node (core.reserve).
RESERVE_BYTES: Final = 16 * MIB
FLOOR_BYTES: Final = 64 * MIB
NODE_RESERVE_BYTES: Final = 1 * MIB
NODE_FLOOR_BYTES: Final = 16 * MIB

# What the server keeps.
KEEP_LEAST_S: Final = 24 * 3600.0
KEEP_MOST_S: Final = 3650 * 24 * 3600.0
KEEP_LOGS_S: Final = 30 * 24 * 3600.0
KEEP_RUNS_S: Final = 90 * 24 * 3600.0
KEEP_EVENTS_S: Final = 90 * 24 * 3600.0

# The audit (core.audit).
AUDIT_TEXT_CHARS: Final = 512
AUDIT_NAME_CHARS: Final = 256
AUDIT_REFUSALS_PER_MIN: Final = 60
AUDIT_CHECKPOINT_ENTRIES: Final = 1_000
AUDIT_CHECKPOINT_S: Final = 3600.0

# A node's own policy, and what tasks may be limited to (core.policy, core.specs).
POLICY_BYTES: Final = 64 * KIB
POLICY_DEPTH: Final = 8
POLICY_OUTPUT_BYTES: Final = 1 << 50
RUN_AS_CHARS: Final = 32
MEMORY_LEAST_BYTES: Final = 4 * MIB
MEMORY_BYTES: Final = 1 << 50
CPUS_LEAST: Final = 0.01
CPUS: Final = 1024.0
PROCESSES: Final = 4_194_304
FILES_LEAST: Final = 8
FILES: Final = 1_048_576
FILE_BYTES: Final = 1 << 50

# What a node keeps.
PIECE_BYTES: Final = 16 * MIB
QUOTA_BYTES: Final = 1024 * MIB
SEALED_KEEP_S: Final = 600.0
SEALED_KEEP_BYTES: Final = 64 * MIB
