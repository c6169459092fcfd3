"""Who may do what: one deny-by-default authoriser (promises 2, "Roles").

A permission belongs to a project, to the whole system, or to oneself. Rights in a project come
from the roles and grants that somebody has there, and from nothing else: a system admin needs a
role like everyone. What no table here names is denied: an unknown role gives nothing, an unknown
permission is had by nobody, and a project that somebody has no role in does not exist for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal, TypeAlias, get_args

import msgspec

from fleetwire.core.errors import FleetwireError

ProjectPermission: TypeAlias = Literal[
    "read",
    "read-logs",
    "run",
    "stop",
    "drain",
    "manage-nodes",
    "manage-enrolment",
    "manage-jobs",
    "manage-secrets",
    "manage-roles",
    "read-audit",
    "terminal",
    "file-write",
    "use-secret",
]
SystemPermission: TypeAlias = Literal[
    "manage-users", "manage-projects", "manage-system", "read-system-audit"
]
OwnPermission: TypeAlias = Literal["know-self", "manage-own-tokens", "manage-own-account"]
Permission: TypeAlias = ProjectPermission | SystemPermission | OwnPermission
ProjectRole: TypeAlias = Literal[
    "viewer", "operator", "project-admin", "auditor", "terminal", "file-write", "use-secret"
]

IN_PROJECT: Final[frozenset[str]] = frozenset(get_args(ProjectPermission))
OF_SYSTEM: Final[frozenset[str]] = frozenset(get_args(SystemPermission))
OWN: Final[frozenset[str]] = frozenset(get_args(OwnPermission))
PERMISSIONS: Final = IN_PROJECT | OF_SYSTEM | OWN

_VIEWER: Final = frozenset({"read", "read-logs"})
_OPERATOR: Final = _VIEWER | {"run", "stop", "drain"}
ROLES: Final[Mapping[str, frozenset[str]]] = {
    "viewer": _VIEWER,
    "operator": _OPERATOR,
    "project-admin": _OPERATOR
    | {"manage-nodes", "manage-enrolment", "manage-jobs", "manage-secrets", "manage-roles"},
    # What is recorded of all that was done, and nothing of what it wrote.
    "auditor": frozenset({"read", "read-audit"}),
    # Separate grants: no role includes them.
    "terminal": frozenset({"terminal"}),
    "file-write": frozenset({"file-write"}),
    "use-secret": frozenset({"use-secret"}),
}
FOUNDER: Final = frozenset({"project-admin", "auditor", "terminal", "file-write", "use-secret"})
"""What whoever makes a project has in it: an empty project holds nothing to protect from them,
and nobody can give themselves more later."""

SYSTEM_ADMIN: Final = OF_SYSTEM | {"manage-roles"}
"""What a system admin may; `manage-roles` in every project, but see `assignable`."""

BY_LOGIN_ONLY: Final = frozenset({"manage-own-account"})
"""What no API token may: who finds one must not be able to become its owner."""

DEFAULT_PROJECT: Final = "00000000-0000-7000-8000-000000000000"
"""The id of the project `default`, the same everywhere: what was there before there were projects
belongs to it."""

DEFAULT_NAME: Final = "default"


class Forbidden(FleetwireError):
    """The caller is known and may not do this; `project` is the id of where, if that is known."""

    code = "forbidden"

    def __init__(
        self, detail: str, *, hint: str = "", field: str | None = None, project: str | None = None
    ) -> None:
        super().__init__(detail, hint=hint, field=field)
        self.project = project


class Scope(msgspec.Struct, frozen=True):
    """What an API token is narrowed to: one project, some permissions; None where it is not."""

    project: str | None = None
    permissions: frozenset[str] | None = None


class Rights(msgspec.Struct, frozen=True):
    """What somebody has: the roles in each project, by its id. `scope` is None for a login."""

    is_system_admin: bool = False
    roles: Mapping[str, frozenset[str]] = {}
    scope: Scope | None = None


class Reach(msgspec.Struct, frozen=True):
    """How far one permission goes: the projects in which somebody has it (`everywhere` for all,
    known or not), and those that they may know of.
    """

    permission: str
    may: frozenset[str]
    knows: frozenset[str]
    everywhere: bool = False

    def has(self, project: str) -> bool:
        """Say whether the permission is had in this project."""
        return self.everywhere or project in self.may

    @property
    def is_nowhere(self) -> bool:
        """Whether it is had in no project at all."""
        return not self.everywhere and not self.may


def of_roles(roles: Iterable[str]) -> frozenset[str]:
    """Return the permissions of these roles and grants together."""
    return frozenset[str]().union(*(ROLES.get(role, frozenset()) for role in roles))


def allowed(rights: Rights, permission: str, project: str | None = None) -> bool:
    """Say whether somebody has a permission: in this project, or, without one, a permission of
    the system or of one's own.
    """
    scope = rights.scope
    if scope is not None and not _in_scope(scope, permission, project):
        return False
    if permission in OWN:
        return True
    if rights.is_system_admin and permission in SYSTEM_ADMIN:
        return project is not None or permission in OF_SYSTEM
    if permission not in IN_PROJECT or project is None:
        return False
    return permission in of_roles(rights.roles.get(project, ()))


def reach(rights: Rights, permission: str) -> Reach:
    """Say in which projects somebody has a permission of projects."""
    within = rights.scope.project if rights.scope is not None else None
    knows = frozenset(
        project for project, roles in rights.roles.items() if roles and within in {None, project}
    )
    asked = knows if within is None else {within}
    may = frozenset(project for project in asked if allowed(rights, permission, project))
    everywhere = (
        rights.is_system_admin
        and permission in SYSTEM_ADMIN & IN_PROJECT
        and (rights.scope is None or _in_scope(rights.scope, permission, None))
    )
    return Reach(permission, may, knows, everywhere)


def assignable(rights: Rights, project: str) -> frozenset[str]:
    """Return the roles that somebody may give to others, and take from them, in a project.

    A system admin all, a project admin those that give no more than they have themselves.
    """
    if not allowed(rights, "manage-roles", project):
        return frozenset()
    if rights.is_system_admin:
        return frozenset(ROLES)
    own = of_roles(rights.roles.get(project, ()))
    return frozenset(role for role, gives in ROLES.items() if gives <= own)


def check_assignment(
    rights: Rights,
    project: str,
    before: frozenset[str],
    after: frozenset[str],
    *,
    is_self: bool,
) -> None:
    """Raise Forbidden unless the roles of a user in a project may be changed so.

    Nobody raises their own rights, a system admin neither: that takes another person.
    """
    beyond = (before ^ after) - assignable(rights, project)
    if beyond:
        raise Forbidden(
            f"You may not give or take the role {min(beyond)!r} here.",
            hint="You can give what you have yourself; a system admin can give the others.",
            field="roles",
            project=project,
        )
    if is_self and not of_roles(after) <= of_roles(before):
        raise Forbidden(
            "Nobody raises their own rights.",
            hint="Ask another system admin, or another admin of the project.",
            field="roles",
            project=project,
        )


def narrower(owner: Rights, wanted: Scope) -> Scope:
    """Return the scope of a token that somebody makes: never wider than what they use for it."""
    scope = owner.scope
    if scope is None:
        return wanted
    if scope.project is not None and wanted.project not in {None, scope.project}:
        raise Forbidden(
            "Your token is for one project, and cannot make one for another.",
            hint="Log in, or use a token without that bound.",
            field="project",
        )
    project = scope.project if wanted.project is None else wanted.project
    if scope.permissions is None:
        return Scope(project, wanted.permissions)
    permissions = scope.permissions if wanted.permissions is None else wanted.permissions
    if not permissions <= scope.permissions:
        raise Forbidden(
            f"Your token may not {min(permissions - scope.permissions)!r}, and neither can one "
            "that it makes.",
            hint="Log in, or use a token without that bound.",
            field="permissions",
        )
    return Scope(project, permissions)


def _in_scope(scope: Scope, permission: str, project: str | None) -> bool:
    if permission == "know-self":
        return True
    if permission in BY_LOGIN_ONLY:
        return False
    if scope.permissions is not None and permission not in scope.permissions:
        return False
    # A token for one project is of no use for the whole system.
    return permission in OWN or scope.project is None or scope.project == project
