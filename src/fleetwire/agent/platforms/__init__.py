"""What differs between operating systems, one small file each; this one chooses.

boot_id() -> str                   an id of this boot
clock() -> float                   seconds, monotonic, counting on while the machine sleeps
default_state() -> str             where the agent keeps its state when nobody says
lock_file(path) -> int | None      a descriptor that holds the lock, or None while another does
slept_s() -> float                 seconds the machine was suspended since its boot
LEAVE_SIGNALS                      signals that ask the agent to leave
SEARCH_PATH                        PATH of a task when the agent has none itself
"""

import sys

if sys.platform == "win32":
    from fleetwire.agent.platforms.win32 import (
        LEAVE_SIGNALS,
        SEARCH_PATH,
        boot_id,
        clock,
        default_state,
        lock_file,
        slept_s,
    )
elif sys.platform == "darwin":
    from fleetwire.agent.platforms.darwin import (
        LEAVE_SIGNALS,
        SEARCH_PATH,
        boot_id,
        clock,
        default_state,
        lock_file,
        slept_s,
    )
else:
    from fleetwire.agent.platforms.linux import (
        LEAVE_SIGNALS,
        SEARCH_PATH,
        boot_id,
        clock,
        default_state,
        lock_file,
        slept_s,
    )

__all__ = [
    "LEAVE_SIGNALS",
    "SEARCH_PATH",
    "boot_id",
    "clock",
    "default_state",
    "lock_file",
    "slept_s",
]
