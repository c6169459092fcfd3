"""`/projects`: what nodes and runs belong to, and who has which roles there."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from fleetwire.core import access
from fleetwire.core.access import Reach
from fleetwire.core.audit import SYSTEM, Target
from fleetwire.server.api import cursor, views, write
from fleetwire.server.api.doors import Door, caller_of, reach_of
from fleetwire.server.api.noting import note_of
from fleetwire.server.api.params import ListQuery, ProjectParams, RolesParams
from fleetwire.server.api.parts import parts_of
from fleetwire.server.domain import finding, people, projects
from fleetwire.server.domain.projects import Member, ProjectView
from fleetwire.server.store import Connection
from fleetwire.server.store.engine import Tx


async def create(request: Request, body: ProjectParams) -> Response:
    """Make a project, and be its founder: with every role and grant in it."""
    parts, caller, note = parts_of(request), caller_of(request), note_of(request)

    def make(tx: Tx) -> ProjectView:
        made = projects.create(tx, body.name, by=caller.user, ids=parts.ids)
        for chain in (SYSTEM, made.id):
            note.say(tx, chain=chain, target=Target("project", made.id, made.name))
        return projects.view(made, people.rights_of(tx.connection, caller.user, caller.role))

    made = await parts.database.write(make)
    parts.auth.forget(caller.user)
    return write.answer(write.project(made), 201)


async def list_(request: Request, query: Annotated[ListQuery, Query()]) -> Response:
    """List your projects by name; a system admin sees all."""
    after, rights = cursor.parse_after(query.cursor), caller_of(request).rights
    found = await parts_of(request).database.read(
        lambda c: projects.list_(c, rights, after=after, limit=query.limit + 1)
    )
    return write.take_page(
        found, query.limit, write=write.project, cursor=lambda one: cursor.after(one.name)
    )


async def show(request: Request, project: str) -> Response:
    """Show a project, by name or id, and what you may in it."""
    rights = caller_of(request).rights
    known = access.reach(rights, "manage-roles")
    found = await parts_of(request).database.read(
        lambda c: finding.known_project(c, project, known)
    )
    return write.answer(write.project(projects.view(found, rights)))


async def delete(request: Request, project: str) -> Response:
    """Delete a project that holds no node and no run."""
    everything = Reach("manage-projects", frozenset(), frozenset(), everywhere=True)
    parts, note = parts_of(request), note_of(request)

    def remove(tx: Tx) -> set[str]:
        found = finding.project(tx.connection, project, everything)
        had = projects.members(tx.connection, within=[found.id])
        projects.delete(tx, found)
        # In its own chain as well: that ends with it, and stays.
        for chain in (found.id, SYSTEM):
            note.say(tx, chain=chain, target=Target("project", found.id, found.name))
        return {one.user_id for one in had}

    parts.auth.forget(*await parts.database.write(remove))
    return Response(status_code=204)


async def members(request: Request, project: str) -> Response:
    """List who has roles in a project."""
    reach = reach_of(request)

    def find(connection: Connection) -> list[Member]:
        found = finding.project(connection, project, reach)
        return projects.members(connection, within=[found.id])

    found = await parts_of(request).database.read(find)
    return write.page([write.member(one) for one in found], None)


async def set_roles(request: Request, project: str, user: str, body: RolesParams) -> Response:
    """Give a user exactly these roles in a project; none takes them out of it.

    Nobody raises their own rights. A project admin gives no role that they do not have. With
    `was`, what one has read, nothing is done where it is not so any more.
    """
    parts, caller, reach = parts_of(request), caller_of(request), reach_of(request)
    note = note_of(request)

    def change(tx: Tx) -> Member:
        found = finding.project(tx.connection, project, reach)
        note.about(chain=found.id)
        made, before = projects.set_roles(
            tx, found, user, body.roles, by=caller.user, rights=caller.rights, was=body.was
        )
        note.say(
            tx,
            target=Target("user", made.user_id, made.user),
            roles=", ".join(made.roles),
            was=", ".join(sorted(before)),
        )
        return made

    made = await parts.database.write(change)
    parts.auth.forget(made.user_id)
    return write.answer(write.member(made))


_PROJECT = "/api/v1/projects/{project}"
DOORS = [
    Door(
        "POST", "/api/v1/projects", create, permission="manage-projects",
        action="project.create", tag="projects", answers={201: views.Project}, problems=(409,),
    ),
    Door(
        "GET", "/api/v1/projects", list_, permission="know-self", tag="projects",
        answers={200: views.Page[views.Project]},
    ),
    Door(
        "GET", _PROJECT, show, permission="know-self", tag="projects",
        answers={200: views.Project}, problems=(404,),
    ),
    Door(
        "DELETE", _PROJECT, delete, permission="manage-projects",
        action="project.delete", tag="projects", answers={204: None}, problems=(404, 409),
    ),
    Door(
        "GET", f"{_PROJECT}/members", members, permission="manage-roles", tag="projects",
        answers={200: views.Members}, problems=(404,),
    ),
    Door(
        "PUT", f"{_PROJECT}/members/{{user}}", set_roles, permission="manage-roles",
        action="role.set", tag="projects", answers={200: views.Member}, problems=(404, 409),
    ),
]  # fmt: skip
