"""`fleetwire nodes`: list and show (what changes them is in `nodes_admin`)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

from fleetwire.cli.app import Leaf
from fleetwire.cli.connect import connect
from fleetwire.cli.parsing import Parser
from fleetwire.cli.show import facts, size, table, when, write_json, write_list
from fleetwire.cli.visible import one_line
from fleetwire.client import Node, NodeEvent

EVENTS_SHOWN: Final = 10
_SIZES: Final = frozenset({"total", "free", "available", "swap_total", "swap_used"})
"""Pieces of inventory that are bytes."""


def _configure_list(parser: Parser) -> None:
    parser.examples.append("fleetwire nodes --output jsonl")
    parser.option("--project", metavar="NAME", help="only those of this project")


def _list(values: argparse.Namespace) -> int:
    with connect() as client:
        if values.output != "text":
            return write_list(
                client.get_raw("nodes", query={"limit": 500, "project": values.project}),
                values.output,
            )
        found = list(client.nodes(project=values.project))
        rows = [
            (
                node.name,
                node.link,
                when(node.link_since),
                admin_text(node),
                f"{node.running}/{node.capacity}",
                node.address or "-",
                ",".join(f"{key}={value}" for key, value in sorted(node.labels.items())),
            )
            for node in found
        ]
    if not rows:
        sys.stderr.write(
            "No nodes yet. Make a token with `fleetwire tokens create --enrolment`, then start\n"
            "`fleetwire agent --server URL` on a machine.\n"
        )
        return 0
    table(("NODE", "LINK", "SINCE", "ADMIN", "BUSY", "ADDRESS", "LABELS"), rows)
    for node in found:
        for warning in node.warnings:
            sys.stdout.write(f"{one_line(node.name)}: {one_line(warning, 500)}\n")
    return 0


def _configure_show(parser: Parser) -> None:
    parser.examples.append("fleetwire nodes show web-1")
    parser.positional("node", completes="node", help="the node's name or id")


def _show(values: argparse.Namespace) -> int:
    with connect() as client:
        if values.output != "text":
            node = client.node(values.node)
            write_json(client.get_raw("nodes", node.id))
            return 0
        node = client.node(values.node)
        show_node(node)
        show_events(islice(client.node_events(node.id, page=EVENTS_SHOWN), EVENTS_SHOWN))
    return 0


def show_events(events: Iterable[NodeEvent]) -> None:
    """Print what happened to a node for people, under a head of its own."""
    lines = [f"  {when(event.at)}  {one_line(event.text, 2000)}\n" for event in events]
    if lines:
        sys.stdout.write("\nwhat happened\n" + "".join(lines))


def admin_text(node: Node, *, left: bool = False) -> str:
    """Return what an administrator decided of a node, for people."""
    if node.admin == "waiting":
        return "waiting for approval"
    if left and node.admin == "draining":
        return f"draining ({node.running} left)"
    return node.admin


def show_node(node: Node) -> None:
    """Print a node for people."""
    link = node.link if node.link_since is None else f"{node.link} since {when(node.link_since)}"
    skew = None if node.clock_skew is None else f"{node.clock_skew:+.3f} s"
    facts(
        (
            ("node", node.name),
            ("id", node.id),
            ("link", link),
            ("admin", admin_text(node, left=True)),
            ("running", f"{node.running} of {node.capacity}"),
            ("labels", ", ".join(f"{k}={v}" for k, v in sorted(node.labels.items())) or None),
            ("address", node.address),
            ("agent", node.agent_version),
            ("clock skew", skew),
            ("last seen", when(node.last_seen_at)),
            ("enrolled", when(node.created_at)),
            *(("warning", warning) for warning in node.warnings),
        )
    )
    if node.inventory:
        sys.stdout.write("\n")
        facts((key, _told(key, value)) for key, value in sorted(node.inventory.items()))


def _told(key: str, value: Any) -> str:  # noqa: ANN401 - JSON
    """Return a piece of inventory on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_told(name, one)}" for name, one in value.items())
    if isinstance(value, list):
        return "; ".join(_told(key, one) for one in value)
    if key in _SIZES and isinstance(value, int):
        return size(value)
    return str(value)


LEAVES = {
    "nodes": Leaf(_configure_list, _list),
    "nodes show": Leaf(_configure_show, _show),
}
