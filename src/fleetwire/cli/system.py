"""`fleetwire system`: the whole in a few lines, and the breaker that a person may close."""

from __future__ import annotations

import argparse

from fleetwire.cli.app import Leaf
from fleetwire.cli.connect import connect
from fleetwire.cli.parsing import Parser
from fleetwire.cli.show import facts, when, write_json
from fleetwire.client import Client, System


def _configure(parser: Parser) -> None:
    parser.examples.append("fleetwire system")


def _show(values: argparse.Namespace) -> int:
    with connect() as client:
        return _told(client, client.system(), values)


def _configure_close(parser: Parser) -> None:
    parser.story = (
        "When more than half of the nodes go offline within a minute the system stops retrying and "
        "placing anew by itself. It goes on when they are back, or when you say so here."
    )
    parser.examples.append("fleetwire system close-breaker")


def _close(values: argparse.Namespace) -> int:
    with connect() as client:
        return _told(client, client.close_breaker(), values)


def _told(client: Client, system: System, values: argparse.Namespace) -> int:
    if values.output != "text":
        write_json(client.get_raw("system"))
        return 0
    nodes = ", ".join(f"{many} {link}" for link, many in system.nodes.items())
    breaker = system.breaker
    facts(
        (
            ("version", system.version),
            ("nodes", nodes),
            (
                "breaker",
                "closed"
                if breaker is None
                else f"OPEN since {when(breaker.since)}: {breaker.text} "
                "(fleetwire system close-breaker)",
            ),
        )
    )
    return 0


LEAVES = {
    "system": Leaf(_configure, _show),
    "system close-breaker": Leaf(_configure_close, _close),
}
