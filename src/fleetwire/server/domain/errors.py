"""What a use case refuses."""

from __future__ import annotations

from fleetwire.core.errors import FleetwireError


class NotFound(FleetwireError):
    """There is no such thing, or the caller may not know of it."""

    code = "not-found"


class Ambiguous(FleetwireError):
    """A prefix begins more than one id."""

    code = "ambiguous-id"


class IdempotencyConflict(FleetwireError):
    """The key was used within 24 hours for a request that differs (P1)."""

    code = "idempotency-key-reused"


class NameTaken(FleetwireError):
    """Another one has this name."""

    code = "name-taken"


class ProjectNeeded(FleetwireError):
    """More than one project is possible, and none was named."""

    code = "project-needed"


class BadEnrolmentToken(FleetwireError):
    """An enrolment token that cannot be used; why is not told."""

    code = "bad-enrolment-token"


class BadEnrolment(FleetwireError):
    """A node's enrolment request has a field that cannot be accepted."""

    code = "bad-enrolment"
