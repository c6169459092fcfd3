"""`fleetwire server`: the server daemon. Settings are `fleetwire.server.config`'s."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from fleetwire.cli.app import Leaf
from fleetwire.cli.errors import UsageError
from fleetwire.cli.parsing import Parser
from fleetwire.cli.show import say, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from fleetwire.server.config import Config
    from fleetwire.server.domain.encrypted import Counted

_FLAGS = (
    "data", "database", "host", "port", "names", "tls", "tls_cert", "tls_key", "tls_ca",
    "behind_proxy", "log_level", "log_format", "parent_fd", "master_key_file",
)  # fmt: skip


def _configure(parser: Parser) -> None:
    parser.story = "Flags win over FLEETWIRE_SERVER_* variables, which win over the settings file."
    parser.examples += [
        "fleetwire server --data /var/lib/fleetwire --port 8080",
        "fleetwire server --host 0.0.0.0 --port 8443 --tls auto --names fleet.example.org",
    ]
    parser.option("--config", metavar="FILE", completes="file", help="settings file, YAML or TOML")
    parser.option(
        "--data", metavar="DIR", completes="folder", help="folder of all that the server keeps"
    )
    parser.option("--database", metavar="URL", help="sqlite:///PATH or postgresql://...")
    parser.option("--host", metavar="ADDRESS", help="address to listen on (default 127.0.0.1)")
    parser.option("--port", metavar="PORT", type=int, help="port to listen on (default 8080)")
    parser.option("--names", metavar="NAME,...", help="more host names that it is reached by")
    parser.option("--tls", choices=("off", "auto"), help="auto: TLS with a CA of its own")
    parser.option("--tls-cert", metavar="FILE", completes="file", help="TLS with this certificate")
    parser.option("--tls-key", metavar="FILE", completes="file", help="and this key")
    parser.option(
        "--tls-ca", metavar="FILE", completes="file", help="the CA that agents are to pin"
    )
    parser.option(
        "--behind-proxy", metavar="CIDR,...", help="proxies that do the TLS, and are believed"
    )
    parser.option(
        "--log-level", choices=("debug", "info", "warning", "error"), help="least level logged"
    )
    parser.option("--log-format", choices=("console", "json"), help="how log lines look")
    _key_file(parser)
    parser.option(
        "--parent-fd", metavar="N", type=int, help="leave when this descriptor reaches its end"
    )


def _call(values: argparse.Namespace) -> int:
    from fleetwire.server import app, config

    flags = {name: getattr(values, name) for name in _FLAGS}
    return app.main(config.load(flags, config_file=values.config)) or 0


def _where(parser: Parser) -> None:
    parser.option("--config", metavar="FILE", completes="file", help="the server's settings file")
    parser.option("--data", metavar="DIR", completes="folder", help="the server's data folder")
    parser.option("--database", metavar="URL", help="its database, where that is no file in there")


def _config(values: argparse.Namespace) -> Config:
    from fleetwire.server import config

    names = ("data", "database", "master_key_file")
    flags = {name: getattr(values, name, None) for name in names}
    return config.load(flags, config_file=values.config)


def _configure_backup(parser: Parser) -> None:
    parser.story = (
        "The server may run meanwhile. The copy holds the record, the logs and the server's key:\n"
        "whoever has it can command the fleet. It does not hold the master key of the secrets\n"
        "and second factors (the file master-key): keep a copy of that apart.\n"
        "PostgreSQL has backups of its own (pg_dump)."
    )
    parser.examples.append("fleetwire server backup --to /backup/fleetwire-monday")
    parser.option("--to", metavar="DIR", completes="folder", help="a folder that is not there yet")
    _where(parser)


def _backup(values: argparse.Namespace) -> int:
    from fleetwire.server import backup

    to = _folder(values.to, "--to", "where to write the backup")
    made = backup.backup(_config(values), to)
    return _say(
        values, made, f"Copied the record and the logs of {len(made.segments)} days to {to}."
    )


def _configure_restore(parser: Parser) -> None:
    parser.story = (
        "Into an empty data folder, with no server running. What waited when the backup was made\n"
        "is held until each node has said whether it ran since; nothing runs twice."
    )
    parser.examples.append("fleetwire server restore --from /backup/fleetwire-monday")
    parser.option("--from", metavar="DIR", completes="folder", help="a folder that backup made")
    parser.option(
        "--nothing-since",
        action="store_true",
        help="the server was stopped when it was made, and has not run since",
    )
    _where(parser)


def _restore(values: argparse.Namespace) -> int:
    from fleetwire.server import backup

    source = _folder(getattr(values, "from"), "--from", "which backup to put back")
    config = _config(values)
    made = backup.put_back(source, config, nothing_since=values.nothing_since)
    text = f"{config.data} is as it was at {backup.moment(made.at)}. Start the server."
    if not values.nothing_since:
        text += "\nWhat waited then is held until its nodes have spoken: fleetwire runs why RUN"
    return _say(values, made, text)


def _configure_raise(parser: Parser) -> None:
    parser.story = (
        "After pg_restore, or after a disk was put back, and before a server starts: what waited\n"
        "then is held until each node has said whether it ran since."
    )
    parser.examples.append("fleetwire server raise-generation --database postgresql://...")
    _where(parser)


def _raise(values: argparse.Namespace) -> int:
    from fleetwire.server import backup

    generation = backup.mark_restored(_config(values))
    return _say(values, {"generation": generation}, f"The generation is {generation} from now on.")


def _configure_rotate(parser: Parser) -> None:
    parser.story = (
        "With the server stopped. Agents learn of the new key from the old one's word, on their\n"
        "next link; both count until the next rotation. Agents of 0.1.0 do not: update them\n"
        "first. After a theft rotate twice: then the stolen key is worth nothing."
    )
    parser.examples.append("fleetwire server rotate-signing-key --data /var/lib/fleetwire")
    _where(parser)


def _rotate(values: argparse.Namespace) -> int:
    from fleetwire.server import backup

    key = backup.rotate_signing_key(_config(values))
    return _say(
        values, {"key": key}, f"Orders are signed by the key {key} from now on. Start the server."
    )


def _key_file(parser: Parser) -> None:
    parser.option(
        "--master-key-file",
        metavar="FILE",
        completes="file",
        help="key of the secrets (default: master-key in the data folder)",
    )


def _configure_rotate_master(parser: Parser) -> None:
    parser.story = (
        "With no server running. The new key takes the old one's place in its file; old copies\n"
        "of the record stay readable with the old key only."
    )
    parser.examples.append("fleetwire server rotate-master-key --data /var/lib/fleetwire")
    _where(parser)
    _key_file(parser)


def _rotate_master(values: argparse.Namespace) -> int:
    from fleetwire.server import rotation

    return _counted(values, rotation.rotate(_config(values)), "encrypted with a new master key.")


def _configure_forget(parser: Parser) -> None:
    parser.story = (
        "When the master key is lost for good, no secret can ever be used again, and a server\n"
        "does not start. This deletes them all, with no server running, and the second factors\n"
        "of people too: they log in by their password alone until they set up another."
    )
    parser.examples.append("fleetwire server forget-secrets --yes")
    parser.option("--yes", action="store_true", help="yes, delete all of them")
    _where(parser)


def _forget(values: argparse.Namespace) -> int:
    from fleetwire.server import rotation

    if not values.yes:
        raise UsageError("This deletes every secret and second factor.", hint="Say so: --yes")
    return _counted(values, rotation.forget(_config(values)), "deleted. Set them again.")


def _folder(value: str | None, option: str, what: str) -> Path:
    from pathlib import Path

    if not value:
        raise UsageError(f"Say {what}: {option} DIR.", hint="Every command has --help.")
    return Path(value).expanduser().absolute()


def _counted(values: argparse.Namespace, done: Counted, what: str) -> int:
    text = f"{done.secrets} secrets and {done.second_factors} second factors are {what}"
    return _say(values, done, text)


def _say(values: argparse.Namespace, shape: object, text: str) -> int:
    if values.output == "text":
        say(text)
        return 0
    import msgspec

    write_json(msgspec.json.encode(shape))
    return 0


LEAVES = {
    "server": Leaf(_configure, _call),
    "server backup": Leaf(_configure_backup, _backup),
    "server restore": Leaf(_configure_restore, _restore),
    "server rotate-signing-key": Leaf(_configure_rotate, _rotate),
    "server raise-generation": Leaf(_configure_raise, _raise),
    "server rotate-master-key": Leaf(_configure_rotate_master, _rotate_master),
    "server forget-secrets": Leaf(_configure_forget, _forget),
}
