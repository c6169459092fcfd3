"""Writing files that must be whole: under another name first, then renamed."""

from __future__ import annotations

import os


def write_atomically(path: str, data: bytes, *, mode: int = 0o600, sync: bool = True) -> None:
    """Replace the file in one step; with `sync` it is durable when this returns.

    The mode is set before there is any content, so that a secret is never readable by others.
    """
    temporary = f"{path}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.fchmod(fd, mode)
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(temporary, path)
    if sync:
        sync_folder(os.path.dirname(path))


def write_new(path: str, data: bytes, *, mode: int) -> None:
    """Write a file that nobody reads yet, in the place of an older one. Not durable, and after a
    crash perhaps not whole.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, mode)
    except FileExistsError:
        os.unlink(path)  # it may have no right to be written
        fd = os.open(path, flags, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)


def sync_folder(path: str) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
