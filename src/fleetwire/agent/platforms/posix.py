"""What Linux and macOS share."""

import os
import signal
import sys
from typing import Final

assert sys.platform != "win32", "flock and XDG folders are POSIX"  # noqa: S101

import fcntl  # noqa: E402 (after the platform is known: mypy reads the line above)

LEAVE_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SEARCH_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def lock_file(path: str) -> int | None:
    """Return a descriptor that holds the lock on the file until it is closed, or None."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def data_home() -> str:
    """Return the folder for a person's own data (XDG base directories)."""
    return os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
