"""Windows: what the agent itself needs. Attempts need the shim, which is POSIX so far."""

import os
import signal
import sys
import time
from typing import Final

assert sys.platform == "win32", "chosen for Windows only"  # noqa: S101

import ctypes  # noqa: E402 (after the platform is known: mypy reads the line above)
import msvcrt  # noqa: E402

LEAVE_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGBREAK)
SEARCH_PATH: Final = os.path.join(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32")


def boot_id() -> str:
    """Return the second of the last boot: Windows names its boots by nothing else."""
    since_boot = ctypes.windll.kernel32.GetTickCount64() // 1000
    now = time.time_ns() // 1_000_000_000
    return f"boot-{now - since_boot}"


def clock() -> float:
    """Return monotonic seconds; Windows counts its sleep in this clock."""
    return time.monotonic()


def slept_s() -> float:
    """Return 0: a sleep is not told from other silence here."""
    return 0.0


def default_state() -> str:
    """Return the state directory of the service."""
    return os.path.join(os.environ.get("PROGRAMDATA", r"C:\ProgramData"), "Fleetwire", "agent")


def lock_file(path: str) -> int | None:
    """Return a descriptor that holds the lock on the file until it is closed, or None."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
    except OSError:
        os.close(fd)
        return None
    return fd
