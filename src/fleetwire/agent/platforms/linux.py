"""Linux."""

import os
import sys
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
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def clock() -> float:
    """Return seconds since the boot, sleep included: a lease runs out in a sleeping laptop too."""
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    raise AssertionError("chosen for Linux only")


def slept_s() -> float:
    """Return how many seconds the machine was suspended since its boot."""
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    raise AssertionError("chosen for Linux only")


def default_state() -> str:
    """Return the state directory of a service (root) or of a person."""
    if os.geteuid() == 0:
        return "/var/lib/fleetwire-agent"
    return os.path.join(data_home(), "fleetwire", "agent")
