"""macOS."""

import os
import subprocess
import time

from fleetwire.agent.platforms.posix import LEAVE_SIGNALS, SEARCH_PATH, data_home, lock_file

__all__ = [
    "LEAVE_SIGNALS",
    "SEARCH_PATH",
    "boot_id",
    "clock",
    "default_state",
    "lock_file",
    "slept_s",
]


def boot_id() -> str:
    """Return the kernel's random id of this boot."""
    answer = subprocess.run(
        ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"], check=True, capture_output=True
    )
    return answer.stdout.decode("ascii").strip().lower()


def clock() -> float:
    """Return monotonic seconds; macOS counts its sleep in this clock."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def slept_s() -> float:
    """Return 0: a sleep is not told from other silence here."""
    return 0.0


def default_state() -> str:
    """Return the state directory of a service (root) or of a person."""
    if os.geteuid() == 0:
        return "/Library/Application Support/Fleetwire/agent"
    return os.path.join(data_home(), "fleetwire", "agent")
