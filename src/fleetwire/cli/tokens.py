"""`fleetwire tokens`: API tokens of this user, and enrolment tokens for new nodes."""

from __future__ import annotations

import argparse
import sys

from fleetwire.cli.app import Leaf
from fleetwire.cli.connect import connect
from fleetwire.cli.errors import UsageError
from fleetwire.cli.parsing import Parser, duration, pair
from fleetwire.cli.show import say, table, when, write_json, write_list


def _configure_list(parser: Parser) -> None:
    parser.examples.append("fleetwire tokens list --enrolment")
    parser.option("--enrolment", action="store_true", help="enrolment tokens of nodes")


def _list(values: argparse.Namespace) -> int:
    with connect() as client:
        if values.output != "text":
            path = "enrolment-tokens" if values.enrolment else "tokens"
            return write_list(client.get_raw(path, query={"limit": 500}), values.output)
        if values.enrolment:
            table(
                ("ID", "EXPIRES", "USED", "LABELS"),
                [
                    (
                        token.id,
                        when(token.expires_at),
                        when(token.used_at),
                        ",".join(f"{k}={v}" for k, v in sorted(token.labels.items())),
                    )
                    for token in client.enrolment_tokens()
                ],
            )
        else:
            table(
                ("ID", "NAME", "CREATED", "EXPIRES", "LAST USED"),
                [
                    (
                        token.id,
                        token.name,
                        when(token.created_at),
                        when(token.expires_at),
                        when(token.last_used_at),
                    )
                    for token in client.tokens()
                ],
            )
    return 0


def _configure_create(parser: Parser) -> None:
    parser.story = "The token is printed once and is stored nowhere: keep it."
    parser.examples += [
        "fleetwire tokens create ci --expires-in 30d",
        "fleetwire tokens create deploy --project web --permission read --permission run",
        "fleetwire tokens create --enrolment --label role=web --expires-in 1h",
        "fleetwire tokens create --enrolment --node-name 'web-*' --network 10.1.0.0/16",
    ]
    parser.positional("name", nargs="?", help="a name, to know it again by")
    parser.option("--enrolment", action="store_true", help="for a new node, instead of for the API")
    parser.option(
        "--label",
        metavar="K=V",
        type=pair,
        action="append",
        default=[],
        help="a label for the node that uses it; may be repeated",
    )
    parser.option("--node-name", metavar="PATTERN", help="only for nodes with such a name: web-*")
    parser.option("--network", metavar="CIDR", help="only from addresses in there")
    parser.option("--approval", action="store_true", help="its node waits: nodes approve NODE")
    parser.option(
        "--expires-in", metavar="TIME", type=duration, help="how long it is valid: 1h, 30d"
    )
    _narrowing(parser)


def _narrowing(parser: Parser) -> None:
    parser.option(
        "--project", metavar="NAME", help="for this project only; the project of the new node"
    )
    parser.option(
        "--permission",
        metavar="NAME",
        action="append",
        default=[],
        help="for this only (docs/access.md lists all); may be repeated",
    )


def _create(values: argparse.Namespace) -> int:
    import msgspec

    from fleetwire.client.shapes import EnrolmentToken

    bound = (values.label, values.node_name, values.network, values.approval)
    if any(bound) and not values.enrolment:
        raise UsageError(
            "--label, --node-name, --network and --approval are for enrolment tokens.",
            hint="Add --enrolment.",
        )
    if values.permission and values.enrolment:
        raise UsageError("--permission is for API tokens.", hint="Leave out --enrolment.")
    if values.enrolment and values.name:
        raise UsageError(
            "An enrolment token has no name.", hint="Leave it out: the node brings its own."
        )
    if not values.enrolment and not values.name:
        raise UsageError("The token needs a name.", hint="fleetwire tokens create NAME")
    with connect() as client:
        token = (
            client.create_enrolment_token(
                labels=dict(values.label),
                expires_in=values.expires_in,
                name=values.node_name,
                network=values.network,
                approval=values.approval,
                project=values.project,
            )
            if values.enrolment
            else client.create_token(
                values.name,
                expires_in=values.expires_in,
                project=values.project,
                permissions=values.permission or None,
            )
        )
    if values.output != "text":
        write_json(msgspec.json.encode(token))
        return 0
    say(token.token or "")
    until = f" It is valid until {when(token.expires_at)}." if token.expires_at else ""
    say(f"This is shown once.{until}", sys.stderr)
    if values.enrolment and isinstance(token, EnrolmentToken) and token.command is not None:
        say(f"On the new machine:\n\n  {token.command}", sys.stderr)
        if is_loopback(token.command):
            say(
                "\nThat is this machine only. For others log in by a name that they reach the "
                "server by,\nand ask again.",
                sys.stderr,
            )
    return 0


def is_loopback(command: str) -> bool:
    """Say whether the server in the line is one that only its own machine reaches."""
    return any(f"://{host}" in command for host in ("127.", "localhost", "[::1]"))


def _configure_delete(parser: Parser) -> None:
    parser.examples.append("fleetwire tokens delete 019a0f3c-1b2d-7abc-8def-0123456789ab")
    parser.positional("token", metavar="ID", help="the token's id")
    parser.option("--enrolment", action="store_true", help="it is an enrolment token")


def _delete(values: argparse.Namespace) -> int:
    with connect() as client:
        if values.enrolment:
            client.delete_enrolment_token(values.token)
        else:
            client.delete_token(values.token)
    if values.output == "text":
        say(f"Token {values.token} is deleted.")
    else:
        write_json(b'{"deleted":true}')
    return 0


LEAVES = {
    "tokens": Leaf(_configure_list, _list),
    "tokens list": Leaf(_configure_list, _list),
    "tokens create": Leaf(_configure_create, _create),
    "tokens delete": Leaf(_configure_delete, _delete),
}
