"""`fleetwire server`: the server daemon. Settings are `fleetwire.server.config`'s."""

from __future__ import annotations

import argparse

from fleetwire.cli.app import Leaf
from fleetwire.cli.parsing import Parser

_FLAGS = ("data", "database", "host", "port", "log_level", "log_format", "parent_fd")


def _configure(parser: Parser) -> None:
    parser.story = "Flags win over FLEETWIRE_SERVER_* variables, which win over the settings file."
    parser.examples.append("fleetwire server --data /var/lib/fleetwire --port 8080")
    parser.option("--config", metavar="FILE", completes="file", help="settings file, YAML or TOML")
    parser.option(
        "--data", metavar="DIR", completes="folder", help="folder of all that the server keeps"
    )
    parser.option("--database", metavar="URL", help="sqlite:///PATH or postgresql://...")
    parser.option("--host", metavar="ADDRESS", help="address to listen on (default 127.0.0.1)")
    parser.option("--port", metavar="PORT", type=int, help="port to listen on (default 8080)")
    parser.option(
        "--log-level", choices=("debug", "info", "warning", "error"), help="least level logged"
    )
    parser.option("--log-format", choices=("console", "json"), help="how log lines look")
    parser.option(
        "--parent-fd", metavar="N", type=int, help="leave when this descriptor reaches its end"
    )


def _call(values: argparse.Namespace) -> int:
    from fleetwire.server import app, config

    flags = {name: getattr(values, name) for name in _FLAGS}
    return app.main(config.load(flags, config_file=values.config)) or 0


LEAVES = {"server": Leaf(_configure, _call)}
