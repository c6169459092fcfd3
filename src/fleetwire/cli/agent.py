"""`fleetwire agent`: the agent daemon, and what it says it is doing."""

from __future__ import annotations

import argparse
import os
import sys
import time

from fleetwire.cli.app import Leaf
from fleetwire.cli.errors import LocalError
from fleetwire.cli.parsing import Parser, count
from fleetwire.cli.show import lasted, write_json
from fleetwire.cli.visible import one_line

_FLAGS = (
    "server", "backup_server", "ca_fingerprint", "tls_ca", "state", "name", "token_file",
    "max_concurrent", "log_level", "log_format", "parent_fd", "policy", "run_as",
    "backoff_initial_s", "backoff_max_s", "spool_quota_bytes",
)  # fmt: skip


def _configure(parser: Parser) -> None:
    parser.story = (
        "Flags win over FLEETWIRE_AGENT_* variables, which win over the settings file. On its\n"
        "first start it needs an enrolment token: `fleetwire tokens create --enrolment`."
    )
    parser.examples.append(
        "fleetwire agent --server https://f.example --ca-fingerprint sha256:4f... --token-file tok"
    )
    parser.option("--config", metavar="FILE", completes="file", help="settings file, YAML")
    parser.option("--server", metavar="URL", help="the server to dial")
    parser.option("--backup-server", metavar="URL", help="dialled when the server does not answer")
    parser.option(
        "--ca-fingerprint", metavar="SHA256", help="of the server's CA, which is pinned then"
    )
    parser.option(
        "--tls-ca", metavar="FILE", completes="file", help="CAs to verify the server by (PEM)"
    )
    parser.option(
        "--state", metavar="DIR", completes="folder", help="folder of its identity and spools"
    )
    parser.option("--name", metavar="NAME", help="the node's name (default: the host's)")
    parser.option(
        "--token-file", metavar="FILE", completes="file", help="holds the enrolment token"
    )
    parser.option(
        "--label",
        metavar="K=V",
        dest="labels",
        action="append",
        default=[],
        help="a label of this node; may be repeated",
    )
    parser.option(
        "--policy",
        metavar="FILE",
        completes="file",
        help="what this node allows (/etc/fleetwire/policy.yaml)",
    )
    parser.option("--run-as", metavar="USER", help="user of tasks that name none")
    parser.option("--max-concurrent", metavar="N", type=count, help="attempts at once (default 5)")
    parser.option(
        "--spool-quota-bytes",
        metavar="N",
        type=count,
        help="output kept here that the server lacks, at most (default 1 GiB)",
    )
    parser.option("--backoff-initial-s", metavar="S", type=float, help="first wait to reconnect")
    parser.option("--backoff-max-s", metavar="S", type=float, help="longest wait to reconnect")
    parser.option(
        "--log-level", choices=("debug", "info", "warning", "error"), help="least level logged"
    )
    parser.option("--log-format", choices=("text", "json"), help="how log lines look")
    parser.option(
        "--parent-fd", metavar="N", type=int, help="leave when this descriptor reaches its end"
    )


def _call(values: argparse.Namespace) -> int:
    from fleetwire.agent import app, config

    flags: dict[str, object] = {name: getattr(values, name) for name in _FLAGS}
    flags["labels"] = values.labels
    return app.main(config.load(flags, os.environ, values.config)) or 0


def _configure_status(parser: Parser) -> None:
    parser.examples.append("fleetwire agent status")
    parser.option("--state", metavar="DIR", completes="folder", help="the agent's state directory")


def _status(values: argparse.Namespace) -> int:
    import msgspec

    from fleetwire.agent import platforms, status

    state = values.state or os.environ.get("FLEETWIRE_AGENT_STATE") or platforms.default_state()
    file = os.path.join(state, status.NAME)
    try:
        with open(file, "rb") as stream:
            body = stream.read()
        report = msgspec.json.decode(body, type=status.Report)
    except FileNotFoundError:
        raise LocalError(
            f"No agent has written {file}.",
            hint="Is an agent running here? Its folder is given by --state.",
        ) from None
    except (OSError, msgspec.MsgspecError) as error:
        raise LocalError(f"{file} cannot be read: {error}.", hint="Check its rights.") from error
    alive = lives(state)
    if values.output != "text":
        write_json(msgspec.json.encode(report))  # the file is indented, for people
        return 0 if alive else 1
    now = time.time_ns() // 1000
    ago = lasted((now - report.written) / 1e6)
    known = f"{report.name or 'not enrolled yet'} {report.node}".strip()
    sys.stdout.write(f"{one_line(known)}, agent {report.version}, process {report.pid}\n")
    for part, doing in sorted(report.parts.items()):
        since = lasted((now - doing.since) / 1e6)
        sys.stdout.write(f"  {part:12}  {one_line(doing.sentence)}  (for {since})\n")
    if not alive:
        sys.stdout.write(f"The agent is not running; this is what it wrote {ago} ago.\n")
    return 0 if alive else 1


def lives(state: str) -> bool:
    """Say whether an agent holds the state directory's lock."""
    import fcntl

    try:
        descriptor = os.open(os.path.join(state, "agent.lock"), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


LEAVES = {
    "agent": Leaf(_configure, _call),
    "agent status": Leaf(_configure_status, _status),
}
