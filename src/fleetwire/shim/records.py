"""The small JSON records of an attempt's folder, each written so that a crash cannot tear it.

A record appears whole or not at all: written to `NAME.tmp`, fsynced, renamed, folder fsynced.
The one exception is `epoch`, which must be created exclusively (architecture 5.2): its existence
counts, its content is evidence.

A full disk must not keep a result from being recorded (promise P16), so the shim sets a few
blocks aside in `reserve` before it starts anything; the last record is written into these. Since
the name `reserve` became durable together with `epoch`, the record is durable as soon as its
bytes are: the rename after that only shows it, and needs no fsync (a journal commit less for each
attempt). Whoever finds a folder without a last record looks into the reserve before he judges.
"""

import contextlib
import errno
import json
import os
import sys
from typing import Any

from fleetwire.shim.locks import open_folder

# Whoever finds one of these has nothing to start and nothing to judge.
LAST_RECORDS = frozenset({"exit", "lost", "canceled", "declined"})

RESERVE = "reserve"
RESERVE_BYTES = 4096

_FULL = (errno.ENOSPC, errno.EDQUOT)
_WRITE = os.O_WRONLY | os.O_CREAT
_READ = 16 * 1024
_encoder = json.JSONEncoder(separators=(",", ":"))


def attempt_of(folder: str) -> str:
    """The id of the attempt whose folder this is, whatever any record in it says."""
    return os.path.basename(os.path.normpath(folder))


def read_record(folder: str, name: str) -> dict[str, Any] | None:
    """The record NAME of the folder; None when there is none.

    `{}` says that the record is there and its content is not: only `epoch` can be so after a
    crash, and for it being there is what counts.
    """
    data = read_bytes(folder, name)
    return None if data is None else _decode(data)


def open_record(directory: int, name: str) -> tuple[int, dict[str, Any]]:
    """A descriptor of the record NAME, which is the caller's to close, and its content. Raises
    FileNotFoundError.
    """
    fd = os.open(name, os.O_RDONLY, dir_fd=directory)
    try:
        return fd, _decode(_read_all(fd))
    except BaseException:
        os.close(fd)
        raise


def read_bytes(folder: str, name: str) -> bytes | None:
    """The record NAME of the folder as it stands there; None when there is none."""
    try:
        return _read(f"{folder}/{name}")
    except FileNotFoundError:
        return None


def write_record(folder: str, name: str, value: dict[str, Any], *, sync: bool = True) -> None:
    """Write the record NAME; with `sync` it is durable when this returns.

    On a full disk the folder's reserve is used up for it. Raises OSError when even that fails.
    """
    directory = open_folder(folder)
    try:
        write_record_at(directory, name, value, sync=sync)
    finally:
        os.close(directory)


def write_record_at(directory: int, name: str, value: dict[str, Any], *, sync: bool = True) -> None:
    """`write_record` for who already holds a descriptor of the folder."""
    data = _encode(value)
    temporary = f"{name}.tmp"
    try:
        _write(directory, temporary, data, _WRITE | os.O_TRUNC, sync=sync)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)
        write_last_record_at(directory, name, value)
        if sync:
            os.fsync(directory)  # this reserve may be a new file
        return
    os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    if sync:
        os.fsync(directory)


def set_reserve_aside(directory: int) -> None:
    """Allocate the blocks of the attempt's last record before there is anything to record."""
    fd = os.open(RESERVE, _WRITE, 0o600, dir_fd=directory)
    try:
        if sys.platform == "linux":
            os.posix_fallocate(fd, 0, RESERVE_BYTES)
        else:
            _write_all(fd, bytes(RESERVE_BYTES))
    finally:
        os.close(fd)


def note_in_reserve(directory: int, value: dict[str, Any]) -> None:
    """Write into the reserve what `read_started` finds there while there is no other record."""
    _write(directory, RESERVE, _encode(value), os.O_WRONLY, sync=False)


def read_started(folder: str) -> dict[str, Any] | None:
    """What is known of the first process of an attempt that has no last record: the record
    `started`, or what stands in the reserve of one that had not lived long; None when nothing is.
    """
    started = read_record(folder, "started")
    if started is not None:
        return started
    noted = _decode((read_bytes(folder, RESERVE) or b"").rstrip(b"\0"))
    return noted if "pid" in noted else None


def write_last_record_at(directory: int, name: str, value: dict[str, Any]) -> None:
    """Write the record that ends an attempt into the reserve, and give it its name.

    Durable when this returns, be it under the one name or the other, where the reserve was
    durably there before.
    """
    # Not truncated on opening: that would give the blocks away.
    fd = os.open(RESERVE, _WRITE, 0o600, dir_fd=directory)
    try:
        data = _encode(value)
        _write_all(fd, data)
        os.ftruncate(fd, len(data))
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(RESERVE, name, src_dir_fd=directory, dst_dir_fd=directory)


def finish_last_record_at(directory: int) -> str | None:
    """Show the last record that stands in the reserve, durably, and return its name.

    So it stands when the shim was killed, or the power went, after the record was written and
    before it had its name. None when there is none. Under the folder's lock only.
    """
    try:
        value = _decode(_read(RESERVE, directory).rstrip(b"\0"))
    except FileNotFoundError:
        return None
    name = "exit" if "cause" in value else "lost" if "reason" in value else None
    if name is not None:
        write_last_record_at(directory, name, value)
        os.fsync(directory)
    return name


def create_record_at(
    directory: int, name: str, value: dict[str, Any], *, twin: int | None = None
) -> bool:
    """Create the record NAME exclusively and durably; False when it was there already.

    `twin` is a descriptor of a record that says as much: where the system can do it, that one gets
    NAME as its second name, which saves a file. Which was opened counts, not who has its name now.

    Durable are its content, its name and all other names in the folder, and the folder's own name:
    in this order, because journaling file systems commit all of it with the first. When it cannot
    be made durable (OSError), nothing of it is left behind.
    """
    try:
        if twin is not None and _link(twin, directory, name):
            os.fsync(twin)
        else:
            _write(directory, name, _encode(value), _WRITE | os.O_EXCL, sync=True)
        os.fsync(directory)
        parent = os.open("..", os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
    except FileExistsError:
        return False
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)
        raise
    return True


def _link(fd: int, directory: int, name: str) -> bool:
    """Give an open file another name; False where that cannot be. Raises FileExistsError."""
    if sys.platform != "linux":
        return False
    try:
        os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=directory, follow_symlinks=True)
    except FileExistsError:
        raise
    except OSError:  # a file system without links; or it has no name any more
        return False
    return True


def _write(directory: int, name: str, data: bytes, flags: int, *, sync: bool) -> None:
    fd = os.open(name, flags, 0o600, dir_fd=directory)
    try:
        _write_all(fd, data)
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


def _read(path: str, directory: int | None = None) -> bytes:
    # Not open(): it makes three objects and seven system calls for a few hundred bytes.
    fd = os.open(path, os.O_RDONLY, dir_fd=directory)
    try:
        return _read_all(fd)
    finally:
        os.close(fd)


def _read_all(fd: int) -> bytes:
    parts = []
    while part := os.read(fd, _READ):
        parts.append(part)
    return b"".join(parts)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _encode(value: dict[str, Any]) -> bytes:
    return _encoder.encode(value).encode()


def _decode(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
