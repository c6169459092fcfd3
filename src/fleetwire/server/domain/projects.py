"""Projects, and who has which roles in them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

import msgspec

from fleetwire.core import access, limits
from fleetwire.core.access import ProjectRole, Rights
from fleetwire.core.errors import BadSpec, FleetwireError
from fleetwire.core.names import is_name
from fleetwire.server.domain.errors import NameTaken, NotFound
from fleetwire.server.store import Connection, people, projects
from fleetwire.server.store.engine import Tx
from fleetwire.server.store.projects import ProjectRow

NAME_HINT: Final = f"Use letters, digits and . _ - inside, at most {limits.NAME_CHARS} characters."


class RolesChanged(FleetwireError):
    """Somebody else has changed the roles meanwhile."""

    code = "roles-changed"


class ProjectInUse(FleetwireError):
    """A project that holds something cannot be deleted."""

    code = "project-in-use"


class ProjectView(msgspec.Struct, frozen=True):
    """A project, and what the one who asks has in it."""

    id: str
    name: str
    created_at: int
    roles: tuple[str, ...]
    permissions: tuple[str, ...]


class Member(msgspec.Struct, frozen=True):
    """A user with roles in a project."""

    user_id: str
    user: str
    project_id: str
    project: str
    roles: tuple[str, ...]


def create(tx: Tx, name: str, *, by: str, ids: Callable[[], str]) -> ProjectRow:
    """Make a project; the user `by` (an id) is its founder (core.access.FOUNDER). Raises BadSpec,
    NameTaken.
    """
    if not is_name(name):
        raise BadSpec(f"{name[:80]!r} is not a name for a project.", hint=NAME_HINT, field="name")
    if projects.by_word(tx.connection, name) is not None:
        raise NameTaken(
            f"There is a project named {name!r} already.", hint="Choose another.", field="name"
        )
    made = ProjectRow(ids(), name, tx.now)
    projects.insert_project(tx.connection, made._asdict())
    projects.set_roles(tx.connection, by, made.id, access.FOUNDER)
    return made


def delete(tx: Tx, project: ProjectRow) -> None:
    """Delete a project that holds nothing. Raises ProjectInUse."""
    if project.id == access.DEFAULT_PROJECT or projects.is_used(tx.connection, project.id):
        raise ProjectInUse(
            f"The project {project.name} cannot be deleted: it holds nodes, runs or secrets, "
            "or it is the one that is always there.",
            hint="Delete its nodes and secrets; its runs go by themselves when they are old.",
        )
    projects.delete_project(tx.connection, project.id)


def view(project: ProjectRow, rights: Rights) -> ProjectView:
    """Return a project as somebody with these rights sees it."""
    roles = rights.roles.get(project.id, frozenset())
    may = {one for one in access.IN_PROJECT if access.allowed(rights, one, project.id)}
    return ProjectView(
        project.id, project.name, project.created_at, tuple(sorted(roles)), tuple(sorted(may))
    )


def list_(
    connection: Connection, rights: Rights, *, after: str | None, limit: int
) -> list[ProjectView]:
    """Return the projects that somebody may know of, by name: a system admin all."""
    known = access.reach(rights, "manage-roles")
    within = None if known.everywhere else known.knows
    found = projects.page(connection, within=within, after=after, limit=limit)
    return [view(one, rights) for one in found]


def of(connection: Connection, rights: Rights, *, within: Collection[str]) -> list[ProjectView]:
    """Return these projects by name."""
    found = projects.page(connection, within=within, after=None, limit=len(within))
    return [view(one, rights) for one in found]


def members(
    connection: Connection,
    *,
    within: Collection[str] | None = None,
    users: Collection[str] | None = None,
) -> list[Member]:
    """Return who has roles in these projects (all where None), of these users (all where None)."""
    found: dict[tuple[str, str], list[str]] = {}
    names: dict[tuple[str, str], tuple[str, str]] = {}
    for row in projects.list_roles(connection, projects_=within, users_=users):
        key = (row.project_id, row.user_id)
        found.setdefault(key, []).append(row.role)
        names[key] = (row.project, row.user)
    return [
        Member(user_id, names[key][1], project_id, names[key][0], tuple(roles))
        for key, roles in found.items()
        for project_id, user_id in [key]
    ]


def set_roles(
    tx: Tx,
    project: ProjectRow,
    user: str,
    roles: Collection[ProjectRole],
    *,
    by: str,
    rights: Rights,
    was: Collection[ProjectRole] | None = None,
) -> tuple[Member, frozenset[str]]:
    """Give a user (by name or id) exactly these roles in a project; none takes them out of it.
    Return the member, and the roles of before.

    `by` is the id of who does it, with these rights; `was` what they believe the user has: who
    adds to it must not bring back what another has just taken away. Whoever asks again, because
    the answer was lost, finds it done. Raises NotFound, RolesChanged, Forbidden.
    """
    found = people.user_by_word(tx.connection, user)
    if found is None:
        raise NotFound(
            f"There is no user {user[:80]!r}.", hint="fleetwire users lists them.", field="user"
        )
    people.lock_user(tx.connection, found["id"])
    before = projects.roles_of(tx.connection, found["id"]).get(project.id, frozenset())
    after = frozenset(roles)
    if was is not None and before not in {frozenset(was), after}:
        has = ", ".join(sorted(before)) or "none"
        raise RolesChanged(
            f"The roles of {found['name']} in {project.name} have changed meanwhile: now {has}.",
            hint="Look at them, and change them again.",
            field="was",
        )
    access.check_assignment(rights, project.id, before, after, is_self=found["id"] == by)
    projects.set_roles(tx.connection, found["id"], project.id, after)
    made = Member(found["id"], found["name"], project.id, project.name, tuple(sorted(after)))
    return made, before
