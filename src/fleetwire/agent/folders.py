"""Attempts' folders on disk: read into `Folder` values, tombstones, marks, deletion.

Everything blocks for as long as the disk takes; records are a few hundred bytes. `at` is wall
time in microseconds since 1970, given by the caller.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import msgspec

from fleetwire.agent.attempts import Folder
from fleetwire.agent.files import write_new
from fleetwire.core import limits
from fleetwire.core.happenings import Declined, Exited, Lost, NeverStarted, Started
from fleetwire.core.ids import is_id
from fleetwire.core.leases import EPOCH_MAX
from fleetwire.shim import spawner
from fleetwire.shim.spool import (
    SpoolReader,
    is_locked,
    read_bytes,
    read_record,
    take_lock,
    write_record,
)

# What a folder of small files takes on disk, roughly; the log's pieces are counted on top.
FOLDER_BYTES: Final = 32 * 1024
_log = logging.getLogger(__name__)
_record: Final = msgspec.json.Decoder(dict[str, Any]).decode
_Kind = TypeVar("_Kind", Started, Exited, Lost, Declined, NeverStarted)
# Who only looks at a lock holds it for an instant: that is no shim.
_LOOK_S: Final = 0.02
LOG_PREFIX: Final = "output."
_TOMBSTONES: Final = ("declined", "canceled", "stop", "lost")


class Places:
    """Where things stand in a state directory."""

    def __init__(self, state: str) -> None:
        self.state = state
        self.spools = os.path.join(state, "spool")
        self.tasks = os.path.join(state, "tasks")

    def make(self) -> None:
        """Create what is missing, for the owner only."""
        for path in (self.state, self.spools, self.tasks):
            os.makedirs(path, mode=0o700, exist_ok=True)

    def spool(self, attempt: str) -> str:
        """Return the attempt's folder: the agent's and the shim's."""
        return f"{self.spools}/{attempt}"

    def task(self, attempt: str) -> str:
        """Return the attempt's working directory: the task's."""
        return f"{self.tasks}/{attempt}"

    def attempts(self) -> list[str]:
        """Return the attempts that have a folder; what is not named like one is not ours."""
        return sorted(name for name in os.listdir(self.spools) if is_id(name))


def load(path: str, *, reader: SpoolReader | None = None) -> Folder:
    """Read a folder. `live` is looked up only where the record does not say that it ended, and
    `length` only where it does: walking a long log takes time.

    A record that a bad disk has damaged never raises: a damaged `exit` or `lost` is `lost`, a
    damaged `epoch` still counts as begun, any other counts as absent. One attempt's bad record
    must not keep the agent from serving all others.
    """
    present = frozenset(os.listdir(path))
    attempt = os.path.basename(path)
    epoch = _read(path, "epoch", present)
    # Once it has begun nobody writes another order, and the epoch is that of the order.
    order = epoch if _epoch(epoch, -1) >= 0 else _read(path, "order", present)
    exit_record = _read(path, "exit", present)
    exited = None if exit_record is None else _convert(exit_record, Exited)
    lost = _value(path, "lost", present, Lost)
    if exited is None and lost is None:
        lost = _damaged(path, present)
    declined = _read(path, "declined", present)
    canceled = _read(path, "canceled", present)
    stop = _read(path, "stop", present)
    ended = exited is not None or lost is not None
    ordered = None if order is None else _epoch(order, None)
    return Folder(
        attempt=attempt,
        live=not ended and is_locked(path),
        ordered=ordered,
        # `epoch` torn by a power loss still counts: it may have started (architecture 5.2).
        begun=None if epoch is None else _epoch(epoch, ordered or 0),
        started=_started(path, present, exit_record, exited),
        exited=exited,
        lost=lost,
        declined_epoch=_epoch(declined, -1),
        declined=None if declined is None else _convert(declined, Declined),
        canceled_epoch=_epoch(canceled, -1),
        canceled=None if canceled is None else _convert(canceled, NeverStarted),
        stop=_epoch(stop, -1),
        sealed="sealed" in present,
        length=_length(path, reader) if ended and _has_log(present) else 0,
        begins=_begins(present) if ended else 0,
    )


def decline(path: str, epoch: int, reason: str, *, final: bool, at: int) -> None:
    """Write the refusal durably; only then may it be reported."""
    os.makedirs(path, mode=0o700, exist_ok=True)
    write_record(path, "declined", {"epoch": epoch, "at": at, "reason": reason, "final": final})


def bar(path: str, epoch: int, at: int) -> bool:
    """Leave the tombstone of a stop that came before the start. True: `canceled` is written,
    it never started. False: a shim holds the lock and either finds `stop`, or has begun.
    """
    os.makedirs(path, mode=0o700, exist_ok=True)
    write_record(path, "stop", {"epoch": epoch, "at": at})
    lock = take_lock(path, patience_s=_LOOK_S)
    if lock is None:
        return False
    try:
        if read_record(path, "epoch") is not None:
            return False
        write_record(path, "canceled", {"epoch": epoch, "at": at})
        return True
    finally:
        os.close(lock)


def clear_tombstones(path: str, epoch: int) -> bool:
    """Remove what older epochs left, before a newer order starts. False: a shim holds the lock
    or the attempt has begun, so it must not be started.
    """
    lock = take_lock(path, patience_s=_LOOK_S)
    if lock is None:
        return False
    try:
        if read_record(path, "epoch") is not None:
            return False
        for name in _TOMBSTONES:
            record = read_record(path, name)
            if record is not None and _epoch(record, -1) < epoch:
                os.unlink(os.path.join(path, name))
        return True
    finally:
        os.close(lock)


def begun(path: str) -> int:
    """Return the epoch that began in an attempt's folder, 0 where none did, or it is torn."""
    try:
        found = (read_record(path, "epoch") or {}).get("epoch", 0)
    except OSError:
        return 0
    return found if isinstance(found, int) else 0


@contextlib.contextmanager
def held_unbegun(path: str) -> Iterator[bool]:
    """Keep every shim out of the folder for a moment. Gives False, and keeps nobody out, where one
    lives there, or the attempt has begun or was stopped before it could: what is put there then
    would be for nobody.
    """
    lock = take_lock(path, patience_s=_LOOK_S)
    try:
        records = ("epoch", "canceled")
        yield lock is not None and all(read_record(path, name) is None for name in records)
    finally:
        if lock is not None:
            os.close(lock)


def mark_sealed(path: str, at: int) -> None:
    """Note that the server has everything. Not fsynced (it would say so again) and not renamed
    into place: that it is there says all. So a second name for `order` does where there is one:
    a file less to make and to delete for each attempt, which is dear when many come and go.
    """
    sealed = f"{path}/sealed"
    try:
        os.link(f"{path}/order", sealed)
    except FileExistsError:
        return
    except OSError:  # no order (it was refused), or a file system without links
        write_new(sealed, msgspec.json.encode({"at": at}), mode=0o600)


def unmark_sealed(path: str) -> None:
    """Take the note back: a restored server wants the attempt again."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(path, "sealed"))


def delete(places: Places, attempt: str) -> bool:
    """Delete both folders of an attempt. False: a shim lives there, nothing was deleted."""
    spool = places.spool(attempt)
    try:
        lock = take_lock(spool, patience_s=_LOOK_S)
    except FileNotFoundError:
        lock = None
    else:
        if lock is None:
            return False
    try:
        # The task's folder first: when we are killed in between, the spool still names the rest.
        remove_tree(places.task(attempt))
        spawner.release(spool)
        remove_tree(spool)
    finally:
        if lock is not None:
            os.close(lock)
    return True


def remove_tree(path: str) -> None:
    """Delete a folder with all that is in it, and follow no link in it."""

    def unlock(function: Callable[[str], object], name: str, _: object) -> None:
        if os.geteuid() == 0:
            # Nothing is closed to root: what failed was lost in a race, perhaps with the owner of
            # the folder, who could put a link where we change a mode by name.
            with contextlib.suppress(FileNotFoundError):
                function(name)
            return
        # A task may have taken its own rights away; the folder is ours all the same.
        os.chmod(os.path.dirname(name), 0o700)
        with contextlib.suppress(FileNotFoundError):
            function(name)

    if os.path.isdir(path):
        shutil.rmtree(path, onerror=unlock)


def _has_log(present: frozenset[str]) -> bool:
    return any(name.startswith(LOG_PREFIX) for name in present)


def _begins(present: frozenset[str]) -> int:
    pieces = (name.removeprefix(LOG_PREFIX) for name in present if name.startswith(LOG_PREFIX))
    return min((int(piece) for piece in pieces if piece.isdecimal()), default=0)


def _length(path: str, reader: SpoolReader | None) -> int:
    if reader is not None:
        return reader.length()
    once = SpoolReader(path)
    try:
        return once.length()
    finally:
        once.close()


def _read(path: str, name: str, present: frozenset[str]) -> dict[str, Any] | None:
    data = read_bytes(path, name) if name in present else None
    if data is None:
        return None
    try:
        return _record(data)
    except (msgspec.MsgspecError, RecursionError):
        return {}  # as `read_record` says it


_Missing = TypeVar("_Missing", int, None)


def _epoch(record: dict[str, Any] | None, missing: _Missing) -> int | _Missing:
    """Return the epoch a record names, `missing` where it names none that could be one."""
    epoch = None if record is None else record.get("epoch")
    return epoch if type(epoch) is int and 0 <= epoch <= EPOCH_MAX else missing


def _damaged(path: str, present: frozenset[str]) -> Lost | None:
    """Return what is left to say of an attempt whose last record cannot be read."""
    for name in ("exit", "lost"):
        if name in present:
            at = os.stat(os.path.join(path, name)).st_mtime_ns // 1000
            return Lost(at, f"its record `{name}` on the node is damaged")
    return None


def _value(path: str, name: str, present: frozenset[str], kind: type[_Kind]) -> _Kind | None:
    record = _read(path, name, present)
    return None if record is None else _convert(record, kind)


def _started(
    path: str, present: frozenset[str], exit_record: dict[str, Any] | None, exited: Exited | None
) -> Started | None:
    """Return its start; one that was over before it had a record of its own is known by its end,
    unless nothing could be executed.
    """
    if "started" not in present and exited is not None and exit_record is not None:
        return None if exit_record.get("pid") is None else Started(exited.started_at)
    return _value(path, "started", present, Started)


def _convert(record: dict[str, Any], kind: type[_Kind]) -> _Kind | None:
    # Records carry no tag, their name is the file's; their durations are spelt with the unit.
    known = {
        key: value[: limits.REASON_CHARS] if isinstance(value, str) else value
        for key, value in record.items()
    }
    try:
        durations = {name: record.get(f"{name}_s") for name in ("duration", "term", "kill")}
        return msgspec.convert({**known, **durations}, kind)
    except msgspec.ValidationError as error:
        _log.error("a record (%s) cannot be read, so it does not count: %s", kind.__name__, error)
        return None
