"""The lock on an attempt's folder: held means that its shim lives (architecture 5.2).

The lock is a `flock` on the folder itself: no file to create, and none that somebody could delete
under a living shim. The kernel drops it with the process, however that ends.
"""

import os
import sys
import time

if sys.platform != "win32":
    import fcntl

_RETRY_S = 0.002


def open_folder(folder: str) -> int:
    """A descriptor of the folder: for its lock, for fsync, and as `dir_fd`."""
    if sys.platform == "win32":
        raise OSError("attempts cannot run on Windows yet: it has no descriptors of folders")
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)


def take_lock(folder: str, *, patience_s: float = 0.0) -> int | None:
    """Take the lock of the attempt's folder.

    Returns an open descriptor of the folder (good as `dir_fd`; closing it drops the lock), or
    None while another process holds the lock. `is_locked` holds it for an instant, so a caller
    for whom None means more than "look again" gives some patience.
    """
    directory = open_folder(folder)
    give_up = time.monotonic() + patience_s
    try:
        while not _try(directory, shared=False):
            if time.monotonic() >= give_up:
                os.close(directory)
                return None
            time.sleep(_RETRY_S)
    except BaseException:
        os.close(directory)
        raise
    return directory


def is_locked(folder: str) -> bool:
    """Whether a shim lives (or somebody judges the folder under its lock just now)."""
    directory = open_folder(folder)
    try:
        return not _try(directory, shared=True)  # two who only look do not see each other
    finally:
        os.close(directory)


def _try(directory: int, *, shared: bool) -> bool:
    if sys.platform != "win32":
        try:
            fcntl.flock(directory, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
