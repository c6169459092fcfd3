"""Rows of projects, and of the roles that people have in them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, delete, insert, or_, select, update

from fleetwire.server.store.prepared import Prepared
from fleetwire.server.store.tables import (
    enrolment_tokens,
    nodes,
    project_roles,
    projects,
    runs,
    secrets,
    tokens,
    users,
)


class ProjectRow(NamedTuple):
    """A project."""

    id: str
    name: str
    created_at: int


class RoleRow(NamedTuple):
    """One role of one user in a project."""

    user_id: str
    user: str
    project_id: str
    project: str
    role: str


_SHOWN = select(projects.c.id, projects.c.name, projects.c.created_at)
_ROLES_OF = Prepared(
    select(project_roles.c.project_id, project_roles.c.role).where(
        project_roles.c.user_id == bindparam("user")
    )
)
_ROLES = (
    select(
        project_roles.c.user_id,
        users.c.name,
        project_roles.c.project_id,
        projects.c.name,
        project_roles.c.role,
    )
    .select_from(
        project_roles.join(users, users.c.id == project_roles.c.user_id).join(
            projects, projects.c.id == project_roles.c.project_id
        )
    )
    .order_by(projects.c.name, users.c.name, project_roles.c.role)
)


def insert_project(connection: Connection, row: Mapping[str, Any]) -> None:
    """Store a project."""
    connection.execute(insert(projects), [dict(row)])


def set_created_at(connection: Connection, project: str, at: int) -> None:
    """Say when a project was made."""
    connection.execute(update(projects).where(projects.c.id == project).values(created_at=at))


def delete_project(connection: Connection, project: str) -> None:
    """Forget a project, the roles in it and the tokens for it."""
    connection.execute(delete(project_roles).where(project_roles.c.project_id == project))
    connection.execute(delete(tokens).where(tokens.c.project_id == project))
    connection.execute(delete(enrolment_tokens).where(enrolment_tokens.c.project_id == project))
    connection.execute(delete(projects).where(projects.c.id == project))


def by_word(connection: Connection, word: str) -> ProjectRow | None:
    """Return the project of this id or name; an id wins over a name."""
    found = [
        ProjectRow(*row)
        for row in connection.execute(
            _SHOWN.where(or_(projects.c.id == word, projects.c.name == word))
        )
    ]
    return max(found, key=lambda one: one.id == word, default=None)


def page(
    connection: Connection, *, within: Collection[str] | None, after: str | None, limit: int
) -> list[ProjectRow]:
    """Return projects by name, those of `within` or all."""
    query = _SHOWN.order_by(projects.c.name).limit(limit)
    if within is not None:
        query = query.where(projects.c.id.in_(within))
    if after is not None:
        query = query.where(projects.c.name > after)
    return [ProjectRow(*row) for row in connection.execute(query)]


def names(connection: Connection, ids: Collection[str]) -> dict[str, str]:
    """Return the names, by id, of those of these projects that exist."""
    return {row[0]: row[1] for row in connection.execute(_SHOWN.where(projects.c.id.in_(ids)))}


def is_used(connection: Connection, project: str) -> bool:
    """Say whether a project holds a node, a run or a secret."""
    for table in (nodes, runs, secrets):
        query = select(table.c.project_id).where(table.c.project_id == project).limit(1)
        if connection.execute(query).first() is not None:
            return True
    return False


def roles_of(connection: Connection, user: str) -> dict[str, frozenset[str]]:
    """Return a user's roles, by project."""
    found: dict[str, set[str]] = {}
    for project, role in _ROLES_OF.rows(connection, {"user": user}):
        found.setdefault(project, set()).add(role)
    return {project: frozenset(roles) for project, roles in found.items()}


def list_roles(
    connection: Connection,
    *,
    projects_: Collection[str] | None = None,
    users_: Collection[str] | None = None,
) -> list[RoleRow]:
    """Return the roles in these projects (all where None) of these users (all where None)."""
    query = _ROLES
    if projects_ is not None:
        query = query.where(project_roles.c.project_id.in_(projects_))
    if users_ is not None:
        query = query.where(project_roles.c.user_id.in_(users_))
    return [RoleRow(*row) for row in connection.execute(query)]


def set_roles(connection: Connection, user: str, project: str, roles: Iterable[str]) -> None:
    """Give a user exactly these roles in a project."""
    connection.execute(
        delete(project_roles)
        .where(project_roles.c.user_id == user)
        .where(project_roles.c.project_id == project)
    )
    rows: Sequence[dict[str, str]] = [
        {"user_id": user, "project_id": project, "role": role} for role in sorted(roles)
    ]
    if rows:
        connection.execute(insert(project_roles), rows)
