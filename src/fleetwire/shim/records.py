"""The small JSON records of an attempt's folder, each written so that a crash cannot tear it.

A record appears whole or not at all: written to `NAME.tmp`, fsynced, renamed, folder fsynced.
The one exception is `epoch`, which must be created exclusively (architecture 5.2): its existence
counts, its content is evidence.

A full disk must not keep a result from being recorded (promise P16), so the shim sets a few
blocks aside in `reserve` before it starts anything; the last record is written into these.
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


def read_record(folder: str, name: str) -> dict[str, Any] | None:
    """The record NAME of the folder; None when there is none.

    `{}` says that the record is there and its content is not: only `epoch` can be so after a
    crash, and for it being there is what counts.
    """
    try:
        with open(os.path.join(folder, name), "rb") as file:
            return _decode(file.read())
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


def write_last_record_at(directory: int, name: str, value: dict[str, Any]) -> None:
    """Write the record that ends an attempt into the reserve, and give it its name."""
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
    os.fsync(directory)


def create_record_at(directory: int, name: str, value: dict[str, Any]) -> bool:
    """Create the record NAME exclusively and durably; False when it was there already.

    When it cannot be made durable (OSError), nothing of it is left behind.
    """
    flags = _WRITE | os.O_EXCL
    try:
        _write(directory, name, _encode(value), flags, sync=True)
        os.fsync(directory)
    except FileExistsError:
        return False
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)
        raise
    return True


def _write(directory: int, name: str, data: bytes, flags: int, *, sync: bool) -> None:
    fd = os.open(name, flags, 0o600, dir_fd=directory)
    try:
        _write_all(fd, data)
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _encode(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _decode(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
