"""The agent's command line, for `fleetwire agent` and `python -m fleetwire.agent`.

argparse and not the CLI's library: this is the daemon's own process, and what it imports here it
carries for years.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NamedTuple

from fleetwire.agent.logs import LEVELS


class CommandLine(NamedTuple):
    """What the command line says: settings by field (None: not given), the file, and whether
    only the status is asked for.
    """

    flags: dict[str, object]
    config: str | None
    status: bool


def parse(arguments: Sequence[str]) -> CommandLine:
    """Read the arguments; exits with 2 and a usage line where they are wrong."""
    parser = argparse.ArgumentParser(
        prog="fleetwire agent",
        description="The daemon of a node: connects to the server and runs what it orders.",
        epilog="Example: fleetwire agent --server https://fleet.example.com "
        "--ca-fingerprint sha256:... --token-file token.txt",
        allow_abbrev=False,
    )
    parser.add_argument(
        "command", nargs="?", choices=["status"], help="say what the agent is doing"
    )
    parser.add_argument("--config", metavar="FILE", help="settings file (YAML)")
    parser.add_argument("--server", metavar="URL", help="the server, http(s)://HOST:PORT")
    parser.add_argument("--backup-server", metavar="URL", help="tried in turn with the first")
    parser.add_argument(
        "--ca-fingerprint", metavar="SHA256", help="of the server's CA, which is pinned then"
    )
    parser.add_argument("--tls-ca", metavar="FILE", help="CAs to verify the server by (PEM)")
    parser.add_argument("--token-file", metavar="FILE", help="the one-time enrolment token")
    parser.add_argument("--name", help="the node's name (default: the host name)")
    parser.add_argument("--state", metavar="DIR", help="the state directory")
    parser.add_argument("--max-concurrent", metavar="N", help="attempts at once (default: 5)")
    parser.add_argument(
        "--label", action="append", dest="labels", metavar="KEY=VALUE", help="may be repeated"
    )
    parser.add_argument("--heartbeat", dest="heartbeat_s", metavar="SECONDS")
    parser.add_argument("--log-level", metavar="LEVEL", help=", ".join(LEVELS))
    parser.add_argument("--log-format", metavar="FORMAT", help="text or json")
    parser.add_argument("--policy", metavar="FILE", help="what this node allows")
    parser.add_argument("--run-as", metavar="USER", help="user of tasks that name none")
    parser.add_argument("--parent-fd", metavar="N", help="leave when this descriptor ends")
    found = vars(parser.parse_args(arguments))
    command, config = found.pop("command"), found.pop("config")
    return CommandLine(found, config, command == "status")
