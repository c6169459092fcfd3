"""Who may do what. Anything absent is denied."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

Role: TypeAlias = Literal["admin"]
Permission: TypeAlias = Literal[
    "read", "run", "stop", "manage-nodes", "manage-enrolment", "manage-own-tokens"
]

GRANTS: Final[dict[str, frozenset[str]]] = {
    "admin": frozenset(
        {"read", "run", "stop", "manage-nodes", "manage-enrolment", "manage-own-tokens"}
    ),
}


def allowed(role: str, permission: str) -> bool:
    """Say whether a role has a permission; an unknown role or permission has none."""
    return permission in GRANTS.get(role, frozenset())
