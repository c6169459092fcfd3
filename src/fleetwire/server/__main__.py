"""`python -m fleetwire.server`: the server with its settings as plain flags."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from fleetwire.core.errors import FleetwireError
from fleetwire.server.config import Config, load


def parse(arguments: Sequence[str]) -> Config:
    """Return the settings of these flags, over the environment's and the file's."""
    parser = argparse.ArgumentParser(prog="python -m fleetwire.server", description=__doc__)
    parser.add_argument("--config", metavar="FILE", help="settings file, YAML or TOML")
    for name, field in Config.model_fields.items():
        flag = f"--{name.replace('_', '-')}"
        if field.annotation is bool:
            parser.add_argument(flag, action="store_true", default=None, help=field.description)
        else:
            parser.add_argument(flag, help=field.description)
    flags = vars(parser.parse_args(arguments))
    return load(flags, config_file=flags.pop("config"))


def main(arguments: Sequence[str]) -> int:
    """Run the server."""
    try:
        config = parse(arguments)
    except FleetwireError as error:
        sys.stderr.write(f"fleetwire server: {error}\n")
        return 2
    from fleetwire.server import app  # noqa: PLC0415 - help and errors need none of it

    return app.main(config)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
