"""`fleetwire secrets`: set, list, delete. A value is read from stdin, a file or a prompt, never
from an argument, which everybody on the machine could read.
"""

from __future__ import annotations

import argparse
import sys

from fleetwire.cli.app import Leaf
from fleetwire.cli.connect import connect
from fleetwire.cli.errors import UsageError
from fleetwire.cli.parsing import Parser
from fleetwire.cli.show import say, table, when, write_json, write_list


def _configure_list(parser: Parser) -> None:
    parser.story = "Their values are shown to nobody."
    parser.examples.append("fleetwire secrets list --project web")
    _project(parser)


def _project(parser: Parser) -> None:
    parser.option("--project", metavar="NAME", help="whose (default: the only one, default)")


def _list(values: argparse.Namespace) -> int:
    with connect() as client:
        if values.output != "text":
            return write_list(
                client.get_raw("secrets", query={"limit": 500, "project": values.project}),
                values.output,
            )
        table(
            ("NAME", "PROJECT", "VERSION", "SET", "BY", "LAST USED"),
            [
                (
                    secret.name,
                    secret.project,
                    str(secret.version),
                    when(secret.updated_at),
                    secret.updated_by,
                    when(secret.last_used_at),
                )
                for secret in client.secrets(project=values.project)
            ],
        )
    return 0


def _configure_set(parser: Parser) -> None:
    parser.story = (
        "The value is read from stdin, where one newline at its end does not count, or as it is\n"
        "from --file. Runs name it (fleetwire run --secret NAME); nobody can read it again."
    )
    parser.examples += [
        "fleetwire secrets set db-password < password.txt",
        "fleetwire secrets set deploy-key --file id_ed25519",
    ]
    parser.positional("name", help="letters, digits, _ . -")
    _project(parser)
    parser.option("--file", metavar="FILE", completes="file", help="take this file's content")


def _set(values: argparse.Namespace) -> int:
    import msgspec

    value = _read(values.file)
    with connect() as client:
        secret = client.set_secret(values.name, value, project=values.project)
    if values.output != "text":
        write_json(msgspec.json.encode(secret))
        return 0
    say(f"Secret {secret.name} is set: version {secret.version}.")
    return 0


def _read(path: str | None) -> bytes:
    if path is not None:
        try:
            with open(path, "rb") as file:
                return file.read()
        except OSError as error:
            raise UsageError(
                f"{path} cannot be read: {error.strerror}.", hint="Name another file."
            ) from error
    if sys.stdin.isatty():
        import getpass

        return getpass.getpass("Value (not shown): ").encode()
    value = sys.stdin.buffer.read()
    return value.removesuffix(b"\r\n" if value.endswith(b"\r\n") else b"\n")


def _configure_delete(parser: Parser) -> None:
    parser.examples.append("fleetwire secrets delete db-password")
    parser.positional("name", help="the secret's name")
    _project(parser)


def _delete(values: argparse.Namespace) -> int:
    with connect() as client:
        client.delete_secret(values.name, project=values.project)
    if values.output == "text":
        say(f"Secret {values.name} is deleted.")
    else:
        write_json(b'{"deleted":true}')
    return 0


LEAVES = {
    "secrets": Leaf(_configure_list, _list),
    "secrets list": Leaf(_configure_list, _list),
    "secrets set": Leaf(_configure_set, _set),
    "secrets delete": Leaf(_configure_delete, _delete),
}
