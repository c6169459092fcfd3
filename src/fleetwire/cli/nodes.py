"""`fleetwire nodes`: list and show."""

from __future__ import annotations

import argparse
import sys
from typing import Any, Final

from fleetwire.cli.app import Leaf
from fleetwire.cli.connect import connect
from fleetwire.cli.parsing import Parser
from fleetwire.cli.runs import write_items
from fleetwire.cli.show import facts, size, table, when, write_json
from fleetwire.client import Node

_SIZES: Final = frozenset({"total", "free", "available", "swap_total", "swap_used"})
"""Pieces of inventory that are bytes."""


def _configure_list(parser: Parser) -> None:
    parser.examples.append("fleetwire nodes --output jsonl")


def _list(values: argparse.Namespace) -> int:
    with connect() as client:
        if values.output != "text":
            body = client.get_raw("nodes", query={"limit": 500})
            write_json(body) if values.output == "json" else write_items(body)
            return 0
        rows = [
            (
                node.name,
                node.link,
                node.admin,
                f"{node.running}/{node.capacity}",
                node.address or "-",
                ",".join(f"{key}={value}" for key, value in sorted(node.labels.items())),
            )
            for node in client.nodes()
        ]
    if not rows:
        sys.stderr.write(
            "No nodes yet. Make a token with `fleetwire tokens create --enrolment`, then start\n"
            "`fleetwire agent --server URL` on a machine.\n"
        )
        return 0
    table(("NODE", "LINK", "ADMIN", "BUSY", "ADDRESS", "LABELS"), rows)
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
        show_node(client.node(values.node))
    return 0


def show_node(node: Node) -> None:
    """Print a node for people."""
    skew = None if node.clock_skew is None else f"{node.clock_skew:+.3f} s"
    facts(
        (
            ("node", node.name),
            ("id", node.id),
            ("link", node.link),
            ("admin", node.admin),
            ("running", f"{node.running} of {node.capacity}"),
            ("labels", ", ".join(f"{k}={v}" for k, v in sorted(node.labels.items())) or None),
            ("address", node.address),
            ("agent", node.agent_version),
            ("clock skew", skew),
            ("last seen", when(node.last_seen_at)),
            ("enrolled", when(node.created_at)),
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
