"""`fleetwire nodes drain | resume | disable | delete | revoke | approve | deny | release | why`:
what an administrator decides.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from itertools import islice
from typing import Final

import msgspec

from fleetwire.cli.app import Leaf
from fleetwire.cli.connect import connect
from fleetwire.cli.parsing import Parser, count
from fleetwire.cli.show import say, when, write_json, write_list
from fleetwire.cli.visible import one_line
from fleetwire.client import Client, Node

LOOK_EVERY_S: Final = 0.5

_DISABLE: Final = "Its link is closed and it may not connect. What runs there runs on unseen."
_APPROVE: Final = (
    "A node whose token asks for approval (tokens create --enrolment --approval) may do\n"
    "nothing until then. To turn it away: fleetwire nodes deny NODE."
)
_RELEASE: Final = (
    "A node is quarantined when a copy of its state directory was used. Stop the copy first:\n"
    "whoever comes first with its key is the node from then on."
)


def _node(parser: Parser) -> None:
    parser.positional("node", completes="node", help="the node's name or id")


def _configure_drain(parser: Parser) -> None:
    parser.story = (
        "What runs there ends by itself; what has not started goes to other nodes where the run "
        "allows. The node is shown as drained once it has confirmed that it starts nothing more "
        "and nothing runs there."
    )
    parser.examples.append("fleetwire nodes drain web-1 --wait")
    _node(parser)
    parser.option("--wait", action="store_true", help="wait until it is drained")


def _drain(values: argparse.Namespace) -> int:
    with connect() as client:
        node = client.set_node(values.node, admin="draining")
        if values.wait:
            node = _wait_drained(client, node, tell=values.output == "text")
        return _told(client, node, values)


def _wait_drained(client: Client, node: Node, *, tell: bool) -> Node:
    said = ""
    while node.admin == "draining":
        left = f"{node.running} left" if node.running else "waiting for its word"
        if tell and left != said:
            say(f"{one_line(node.name)} is draining: {left}", sys.stderr)
            said = left
        time.sleep(LOOK_EVERY_S)
        node = client.node(node.id)
    return node


def _deed(do: Callable[[Client, str], Node], story: str = "") -> Leaf:
    """Return a command that does one thing to a node and says how the node is then."""

    def configure(parser: Parser) -> None:
        parser.story = story
        parser.examples.append(f"fleetwire {parser.name} web-1")
        _node(parser)

    def call(values: argparse.Namespace) -> int:
        with connect() as client:
            return _told(client, do(client, values.node), values)

    return Leaf(configure, call)


def _told(client: Client, node: Node, values: argparse.Namespace) -> int:
    if values.output != "text":
        write_json(client.get_raw("nodes", node.id))
        return 0
    left = f", {node.running} of its attempts are left" if node.admin == "draining" else ""
    say(f"Node {one_line(node.name)} is {node.admin}{left}.")
    return 0


def _configure_delete(parser: Parser) -> None:
    parser.story = (
        "Its key is refused from then on, and what it still had is lost, for that reason. To come "
        "back the machine enrols anew."
    )
    parser.examples.append("fleetwire nodes delete web-1")
    _node(parser)
    parser.option("--force", action="store_true", help="also when it is not gone")


def _delete(values: argparse.Namespace) -> int:
    with connect() as client:
        gone = client.delete_node(values.node, force=values.force)
    if values.output != "text":
        write_json(msgspec.json.encode(gone))
        return 0
    lost = f"; {gone.lost} attempts were lost with it" if gone.lost else ""
    say(f"Node {one_line(gone.name)} is deleted{lost}.")
    return 0


def _configure_revoke(parser: Parser) -> None:
    parser.story = (
        "Its key is refused from now on, its link is closed within seconds, and what it had is\n"
        "lost to the record. To come back the machine enrols anew, as another node."
    )
    parser.examples.append("fleetwire nodes revoke web-1")
    _node(parser)
    parser.set_defaults(force=True)


def _configure_deny(parser: Parser) -> None:
    parser.story = "It is forgotten; its key is refused, and its token is used up."
    parser.examples.append("fleetwire nodes deny web-1")
    _node(parser)


def _deny(values: argparse.Namespace) -> int:
    with connect() as client:
        gone = client.delete_node(values.node, force=True, only_waiting=True)
    if values.output != "text":
        write_json(msgspec.json.encode(gone))
    else:
        say(f"Node {one_line(gone.name)} is turned away.")
    return 0


def _configure_why(parser: Parser) -> None:
    parser.examples.append("fleetwire nodes why web-1")
    _node(parser)
    parser.option(
        "--limit", metavar="N", type=count, default=50, help="at most N, newest first (default 50)"
    )


def _why(values: argparse.Namespace) -> int:
    with connect() as client:
        page = min(values.limit, 500)
        if values.output != "text":
            id_ = client.node(values.node).id
            return write_list(
                client.get_raw("nodes", id_, "events", query={"limit": page}), values.output
            )
        for event in islice(client.node_events(values.node, page=page), values.limit):
            sys.stdout.write(f"{when(event.at)}  {one_line(event.text, 2000)}\n")
    return 0


LEAVES = {
    "nodes drain": Leaf(_configure_drain, _drain),
    "nodes resume": _deed(lambda client, node: client.set_node(node, admin="active")),
    "nodes disable": _deed(lambda client, node: client.set_node(node, admin="disabled"), _DISABLE),
    "nodes delete": Leaf(_configure_delete, _delete),
    "nodes revoke": Leaf(_configure_revoke, _delete),
    "nodes deny": Leaf(_configure_deny, _deny),
    "nodes approve": _deed(Client.approve_node, _APPROVE),
    "nodes release": _deed(Client.release_node, _RELEASE),
    "nodes why": Leaf(_configure_why, _why),
}
