"""What can be wrong before a swarm runs."""

from __future__ import annotations

from fleetwire.core.errors import FleetwireError


class SwarmError(FleetwireError):
    """The swarm cannot run as it was asked to."""

    code = "local"
