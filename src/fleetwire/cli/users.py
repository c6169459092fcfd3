"""`fleetwire users`: who may log in, for system admins."""

from __future__ import annotations

import argparse
import sys

from fleetwire.cli.app import Leaf
from fleetwire.cli.connect import connect
from fleetwire.cli.errors import UsageError
from fleetwire.cli.login import read_secret
from fleetwire.cli.parsing import Parser
from fleetwire.cli.show import facts, say, table, when, write_json, write_list
from fleetwire.client.shapes import Account


def _configure_list(parser: Parser) -> None:
    parser.examples.append("fleetwire users --output jsonl")


def _list(values: argparse.Namespace) -> int:
    with connect() as client:
        if values.output != "text":
            return write_list(client.get_raw("users", query={"limit": 500}), values.output)
        rows = [(one.name, _what(one), when(one.created_at)) for one in client.users()]
    table(("USER", "STATE", "CREATED"), rows)
    return 0


def _what(user: Account) -> str:
    said = ["disabled" if user.disabled else "active"]
    said += ["system admin"] if user.role == "admin" else []
    said += ["second factor"] if user.totp else []
    said += [] if user.has_password else ["logs in elsewhere"]
    return ", ".join(said)


def _configure_show(parser: Parser) -> None:
    parser.examples.append("fleetwire users show ann")
    parser.positional("user", help="name or id")


def _show(values: argparse.Namespace) -> int:
    with connect() as client:
        if values.output != "text":
            write_json(client.get_raw("users", values.user))
            return 0
        user = client.user(values.user)
    facts((("user", user.name), ("id", user.id), ("state", _what(user))))
    if user.projects:
        sys.stdout.write("\n")
        table(("PROJECT", "ROLES"), [(one.project, ", ".join(one.roles)) for one in user.projects])
    return 0


def _configure_create(parser: Parser) -> None:
    parser.story = (
        "`fleetwire roles grant` gives roles in projects; until then the user may nothing, or\n"
        "with --system-admin manage users and projects. Without --password-file a password is\n"
        "made and printed once."
    )
    parser.examples += [
        "fleetwire users create ann",
        "fleetwire users create bob --oidc-subject 248289761001",
    ]
    parser.positional("name", help="what to log in as")
    _password_option(parser)
    parser.option("--system-admin", action="store_true", help="to manage users and projects")
    parser.option(
        "--oidc-subject", metavar="ID", help="logs in at the OpenID provider, as this subject"
    )


def _password_option(parser: Parser) -> None:
    parser.option(
        "--password-file", metavar="FILE", completes="file", help="read the password from here"
    )


def _create(values: argparse.Namespace) -> int:
    if values.oidc_subject and values.password_file:
        raise UsageError("Who logs in elsewhere has no password here.", hint="Leave one out.")
    password = read_secret(values.password_file) if values.password_file else None
    with connect() as client:
        made = client.create_user(
            values.name,
            password=password,
            system_admin=values.system_admin,
            oidc_subject=values.oidc_subject,
        )
    may = "may manage users and projects" if made.role == "admin" else "may nothing yet"
    return _told(values, made, f"User {made.name} is made, and {may}.")


def _told(values: argparse.Namespace, user: Account, text: str) -> int:
    if values.output != "text":
        import msgspec

        write_json(msgspec.json.encode(user))
        return 0
    if user.password is not None:
        say(user.password)
        say(f"{text} The password is shown once.", sys.stderr)
    else:
        say(text)
    return 0


def _configure_one(parser: Parser) -> None:
    parser.examples.append(f"fleetwire {parser.name} ann")
    parser.positional("user", help="name or id")


def _disable(values: argparse.Namespace) -> int:
    with connect() as client:
        user = client.change_user(values.user, disabled=True)
    return _told(values, user, f"User {user.name} is disabled, and out within 5 s.")


def _enable(values: argparse.Namespace) -> int:
    with connect() as client:
        user = client.change_user(values.user, disabled=False)
    return _told(values, user, f"User {user.name} may log in again.")


def _configure_reset(parser: Parser) -> None:
    parser.story = "Their logins end. Without --password-file a password is made and printed once."
    parser.examples.append("fleetwire users reset-password ann")
    parser.positional("user", help="name or id")
    _password_option(parser)


def _reset(values: argparse.Namespace) -> int:
    password = read_secret(values.password_file) if values.password_file else None
    with connect() as client:
        user = client.reset_password(values.user, password)
    return _told(values, user, f"User {user.name} has a new password.")


def _end_totp(values: argparse.Namespace) -> int:
    with connect() as client:
        client.end_totp(values.user)
    if values.output == "text":
        say(f"User {values.user} logs in without a second factor.")
    else:
        write_json(b'{"ended":true}')
    return 0


LEAVES = {
    "users": Leaf(_configure_list, _list),
    "users show": Leaf(_configure_show, _show),
    "users create": Leaf(_configure_create, _create),
    "users disable": Leaf(_configure_one, _disable),
    "users enable": Leaf(_configure_one, _enable),
    "users reset-password": Leaf(_configure_reset, _reset),
    "users end-totp": Leaf(_configure_one, _end_totp),
}
