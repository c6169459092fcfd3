"""All doors of the API, in the order in which they are tried."""

from __future__ import annotations

from typing import Final

from fleetwire.server.api import (
    account,
    attempts,
    audit,
    enrolment,
    health,
    login,
    nodes,
    projects,
    runs,
    secrets,
    system,
    tokens,
    users,
)
from fleetwire.server.api.doors import Door

DOORS: Final[tuple[Door, ...]] = (
    *runs.DOORS,
    *attempts.DOORS,
    *nodes.DOORS,
    *system.DOORS,
    *login.DOORS,
    *account.DOORS,
    *tokens.DOORS,
    *users.DOORS,
    *projects.DOORS,
    *enrolment.DOORS,
    *secrets.DOORS,
    *audit.DOORS,
    *health.DOORS,
)
