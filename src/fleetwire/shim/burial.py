"""What becomes of an attempt whose shim was killed: end what it left behind, then say `lost`.

Two do this, by the same rules: the spawner for its own shims, at once, and the agent (`bury`) for
shims that died while no spawner was there to see it.
"""

import os
import sys
import time

assert sys.platform != "win32", "shims need POSIX process trees"

from fleetwire.shim import confine, delivery, tree
from fleetwire.shim.locks import take_lock
from fleetwire.shim.order import secrets_folder
from fleetwire.shim.records import (
    LAST_RECORDS,
    attempt_of,
    create_record_at,
    finish_last_record_at,
    open_record,
    read_record,
    read_started,
    write_record_at,
)

SHIM_DIED, START_UNKNOWN, REBOOTED = "shim died", "start unknown", "node rebooted"
SPOOL_GONE = "spool gone: the attempt's folder was deleted on the node"
COPIED = "spool gone: this is a copy of the attempt's folder, and its shim lives elsewhere"
_PAUSE_S = 0.002


def judge(directory: int, folder: str) -> str | None:
    """Why the attempt is lost, once its shim is gone; None when it is not.

    Not lost is one that never began (no `epoch`: it may start) and one with its last record, be
    it still in the reserve: then it gets its name. To be asked under the lock only; `directory`
    is the descriptor that holds it.
    """
    if not LAST_RECORDS.isdisjoint(os.listdir(folder)):
        return None
    epoch = read_record(folder, "epoch")
    if epoch is None:
        return None
    if finish_last_record_at(directory) is not None:
        return None
    if epoch.get("boot_id", tree.boot_id()) != tree.boot_id():
        return REBOOTED
    return START_UNKNOWN if read_started(folder) is None else SHIM_DIED


def left_alive(folder: str) -> list[tree.Process]:
    """The processes of the attempt that live, its shim being dead; [] after a reboot. A look, and
    nothing else: whose they are is judged by it.
    """
    started = read_started(folder) or {}
    if started.get("boot_id", tree.boot_id()) != tree.boot_id():
        return []
    attempt = attempt_of(folder)
    found = tree.survivors(attempt, started.get("pid"), started.get("pid_start"))
    # What gave itself another session and environment, and so another look, is in its group still.
    known = {process.pid for process in found}
    return found + [each for each in confine.members(folder) if each.pid not in known]


def is_copy(folder: str) -> bool:
    """Whether what lives of the attempt still lives below its shim, though the lock is free: a shim
    writes a last record before it lets go of its folder, so this is not its folder but a copy of
    it, and what runs there is not ours to end (law 4). The tree of a shim that died is elsewhere:
    it comes to the spawner.
    """
    shim = (read_started(folder) or {}).get("shim")
    shim = shim or (read_record(folder, "epoch") or {}).get("pid")
    if shim is None:
        return False
    living = {process.pid for process in left_alive(folder)}
    return bool(living) and not living.isdisjoint(one.pid for one in tree.descendants(shim))


def end_left(folder: str) -> bool:
    """Kill what is found of an attempt whose shim is dead; whether anything was. To be repeated
    until nothing is, and never asked of a copy (see `is_copy`).
    """
    # The groups first, in one step: what forks faster than we look loses by that.
    confine.kill_left(folder)
    living = left_alive(folder)
    # One by one: a group may hold others than those this search proves to be ours.
    tree.kill_each(living)
    return bool(living)


def close_grave(directory: int, folder: str, reason: str) -> None:
    """Remove its control groups and secrets, and write `lost`; nothing of the attempt lives any
    more, and `directory` is the descriptor that holds the lock.
    """
    confine.forget(folder)
    try:
        fd, order = open_record(directory, "order")
    except FileNotFoundError:
        pass  # the folder was deleted: the agent removes what belongs to no attempt
    else:
        os.close(fd)
        delivery.remove(secrets_folder(order, attempt_of(folder)))
    _write_lost(directory, reason)


def bury(folder: str, *, epoch: int = 0) -> str | None:
    """End what is left of an attempt whose shim and spawner are gone, and write `lost`.

    Returns the reason written; None when there was nothing to do: a shim lives, the attempt never
    began, or it has its last record. Blocks until nothing of the attempt lives. Calling it again,
    or from two processes, is harmless.

    A folder that was deleted under a living shim can hold no record and no `control` any more, so
    nobody could ever stop the task or learn its end: the folder is made anew, with an `epoch` that
    names `epoch`, and the task is ended.
    """
    gone = not os.path.isdir(folder)
    if gone:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    directory = take_lock(folder)
    if directory is None:
        return None
    try:
        if gone:
            create_record_at(directory, "epoch", {"epoch": epoch})
        reason = SPOOL_GONE if gone else judge(directory, folder)
        if reason is None:
            return None
        if reason not in {REBOOTED, SPOOL_GONE} and is_copy(folder):
            # Its order names the groups and the secrets of the attempt that lives.
            _write_lost(directory, COPIED)
            return COPIED
        while reason != REBOOTED and end_left(folder):
            time.sleep(_PAUSE_S)
        close_grave(directory, folder, reason)
        return reason
    finally:
        os.close(directory)


def _write_lost(directory: int, reason: str) -> None:
    write_record_at(directory, "lost", {"reason": reason, "at": time.time_ns() // 1000})
