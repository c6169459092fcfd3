"""`python -m fleetwire.agent [status] [--server URL] ...`: the daemon without the CLI."""

import os
import sys

from fleetwire.agent import app, config, flags, platforms, status
from fleetwire.core.errors import FleetwireError
from fleetwire.core.visible import visible_text


def start(arguments: list[str]) -> int:
    """Do what the command line says; returns the exit code."""
    line = flags.parse(arguments)
    try:
        settings = config.load(line.flags, os.environ, line.config)
    except FleetwireError as error:
        if line.status and line.flags.get("state"):
            return _say_status(str(line.flags["state"]))
        print(f"fleetwire agent: {visible_text(str(error))}", file=sys.stderr)  # noqa: T201 (it talks to a person)
        return 2
    if line.status:
        return _say_status(settings.state)
    return app.main(settings)


def _say_status(state: str) -> int:
    running = os.path.isdir(state)
    if running:
        lock = platforms.lock_file(os.path.join(state, app.LOCK))
        running = lock is None
        if lock is not None:
            os.close(lock)
    report = status.read(state)
    print(status.describe(report, running=running, now=app.wall_us()))  # noqa: T201 (as above)
    return 0 if running else 1


if __name__ == "__main__":
    sys.exit(start(sys.argv[1:]))
