"""`fleetwire projects` and `fleetwire roles`: what nodes and runs belong to, and who may what."""

from __future__ import annotations

import argparse
import sys
from typing import Final

from fleetwire.cli.app import Leaf
from fleetwire.cli.connect import connect
from fleetwire.cli.parsing import Parser
from fleetwire.cli.show import say, table, when, write_json, write_list
from fleetwire.client import Client, shapes
from fleetwire.core import access

_ROLES: Final = tuple(access.ROLES)


def _configure_list(parser: Parser) -> None:
    parser.examples.append("fleetwire projects")


def _list(values: argparse.Namespace) -> int:
    with connect() as client:
        if values.output != "text":
            return write_list(client.get_raw("projects", query={"limit": 500}), values.output)
        rows = [
            (one.name, ", ".join(one.roles) or "-", when(one.created_at))
            for one in client.projects()
        ]
    if not rows:
        sys.stderr.write("You are in no project. Ask a system admin for a role in one.\n")
        return 0
    table(("PROJECT", "YOUR ROLES", "CREATED"), rows)
    return 0


def _configure_create(parser: Parser) -> None:
    parser.story = "You are its founder, with every role in it."
    parser.examples.append("fleetwire projects create web")
    parser.positional("project", metavar="NAME", help="what to call it")


def _create(values: argparse.Namespace) -> int:
    import msgspec

    with connect() as client:
        made = client.create_project(values.project)
    if values.output == "text":
        say(f"Project {made.name} is made.")
    else:
        write_json(msgspec.json.encode(made))
    return 0


def _configure_delete(parser: Parser) -> None:
    parser.story = "Only a project that holds no node and no run can be deleted."
    parser.examples.append("fleetwire projects delete web")
    parser.positional("project", help="name or id")


def _delete(values: argparse.Namespace) -> int:
    with connect() as client:
        client.delete_project(values.project)
    if values.output == "text":
        say(f"Project {values.project} is deleted.")
    else:
        write_json(b'{"deleted":true}')
    return 0


def _configure_roles(parser: Parser) -> None:
    parser.examples.append("fleetwire roles --project web")
    _project_option(parser)


def _project_option(parser: Parser) -> None:
    parser.option(
        "--project", metavar="NAME", default=access.DEFAULT_NAME, help="where (default: default)"
    )


def _roles(values: argparse.Namespace) -> int:
    with connect() as client:
        if values.output != "text":
            return write_list(client.get_raw("projects", values.project, "members"), values.output)
        rows = [(one.user, ", ".join(one.roles)) for one in client.members(values.project)]
    table(("USER", f"ROLES IN {values.project}"), rows)
    return 0


def _configure_change(parser: Parser) -> None:
    parser.story = (
        f"Roles: {', '.join(_ROLES[:4])}.\n"
        f"Grants, which no role includes: {', '.join(_ROLES[4:])}.\n"
        "docs/access.md says what each may. Nobody raises their own rights."
    )
    parser.examples.append(f"fleetwire {parser.name} ann operator --project web")
    parser.positional("user", help="name or id")
    parser.positional("role", nargs="+", choices=_ROLES, metavar="ROLE", help="one or more")
    _project_option(parser)


def _grant(values: argparse.Namespace) -> int:
    with connect() as client:
        has = _roles_of(client, values)
        return _change(client, values, has, has | set(values.role))


def _revoke(values: argparse.Namespace) -> int:
    with connect() as client:
        has = _roles_of(client, values)
        return _change(client, values, has, has - set(values.role))


def _roles_of(client: Client, values: argparse.Namespace) -> set[str]:
    for one in client.members(values.project):
        if values.user in {one.user, one.user_id}:
            return set(one.roles)
    return set()


def _change(client: Client, values: argparse.Namespace, was: set[str], roles: set[str]) -> int:
    import msgspec

    made: shapes.Member = client.set_roles(
        values.project, values.user, sorted(roles), was=sorted(was)
    )
    if values.output == "text":
        has = ", ".join(made.roles) or "no role any more"
        say(f"{made.user} has in {made.project}: {has}.")
    else:
        write_json(msgspec.json.encode(made))
    return 0


LEAVES = {
    "projects": Leaf(_configure_list, _list),
    "projects create": Leaf(_configure_create, _create),
    "projects delete": Leaf(_configure_delete, _delete),
    "roles": Leaf(_configure_roles, _roles),
    "roles grant": Leaf(_configure_change, _grant),
    "roles revoke": Leaf(_configure_change, _revoke),
}
