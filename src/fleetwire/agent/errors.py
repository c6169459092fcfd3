"""What can stop an agent. Everything else is retried for ever."""

from __future__ import annotations

from fleetwire.core.errors import FleetwireError


class ConfigError(FleetwireError):
    """A setting cannot be used."""

    code = "bad-config"


class AlreadyRunning(FleetwireError):
    """Another agent holds the state directory."""

    code = "agent-already-running"


class EnrolmentRefused(FleetwireError):
    """The server does not take this node in."""

    code = "enrolment-refused"


class IdentityUnreadable(FleetwireError):
    """identity.json is there and cannot be used."""

    code = "identity-unreadable"
