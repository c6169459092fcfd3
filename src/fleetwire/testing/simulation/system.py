"""The operating system's calls that agent and shim make, on simulated disks.

`System` has the names of `os` and is put in its place in the modules of the agent and of the
shim's format (`installed.py`), so that it is their own code that opens, writes, fsyncs and
renames. The first part of a path is the node's name, which says whose disk it is on.
"""

# ruff: noqa: D102, ARG002 - the calls and their parameters are those of `os`, documented there

from __future__ import annotations

import errno
import io
import os
import posixpath
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Final

from fleetwire.testing.simulation.disk import Change, Disk, File, Folder, Handle, Inode, Watched
from fleetwire.testing.simulation.loop import CURRENT, Process, check_alive

FIRST_FD: Final = 100_000
_OPEN_FILES: Final = "/proc/self/fd/"
LOCK_SH, LOCK_EX, LOCK_NB = 1, 2, 4


class _Path:
    """`os.path`."""

    join = staticmethod(posixpath.join)
    basename = staticmethod(posixpath.basename)
    dirname = staticmethod(posixpath.dirname)
    normpath = staticmethod(posixpath.normpath)
    abspath = staticmethod(posixpath.abspath)

    def __init__(self, system: System) -> None:
        self._system = system

    def exists(self, path: str) -> bool:
        return self._system.look(path) is not None

    def isdir(self, path: str) -> bool:
        return isinstance(self._system.look(path), Folder)


class System:
    """One per world; see the module."""

    O_RDONLY, O_WRONLY, O_RDWR = os.O_RDONLY, os.O_WRONLY, os.O_RDWR
    O_CREAT, O_EXCL, O_TRUNC, O_APPEND = os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_APPEND
    O_CLOEXEC, O_DIRECTORY = os.O_CLOEXEC, os.O_DIRECTORY
    sep = "/"

    def __init__(self) -> None:
        self.path = _Path(self)
        self.environ = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
        self.disks: dict[str, Disk] = {}
        self._open: dict[int, Handle] = {}
        self._next = FIRST_FD

    # -- for the world -----------------------------------------------------------------------

    def release(self, process: Process) -> None:
        """Close what a dead process had open."""
        for fd in [fd for fd, handle in self._open.items() if handle.process is process]:
            self._drop(fd)

    def unplug(self, disk: Disk) -> None:
        """Close everything that is open on a disk."""
        for fd in [fd for fd, handle in self._open.items() if handle.disk is disk]:
            self._drop(fd)

    def content(self, path: str) -> bytes:
        """Return what is in a file."""
        disk, start, rest = self._start(path, None)
        inode = disk.find(rest, start=start)
        if not isinstance(inode, File):
            raise _error(IsADirectoryError, errno.EISDIR, path)
        return bytes(inode.data)

    def reading(self, path: str) -> io.BytesIO:
        """As the built-in `open` of a file to read."""
        return io.BytesIO(self.content(path))

    def watch(self, path: str, told: Watched | None) -> None:
        """Tell of each write and rename in a folder, as inotify does; None: no more."""
        inode = self.look(path)
        if isinstance(inode, Folder):
            inode.watched = told

    def look(self, path: str) -> Inode | None:
        """Return what has this path, or None."""
        check_alive()
        disk, rest = self._disk(path)
        try:
            return disk.find(rest)
        except OSError:
            return None

    # -- descriptors -------------------------------------------------------------------------

    def open(self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        disk, start, rest = self._start(path, dir_fd)
        writes = bool(flags & (os.O_WRONLY | os.O_RDWR))
        if rest in {"", ".", ".."}:
            inode: Inode = self._above(path, start, dir_fd) if rest == ".." else start
            return self._give(Handle(disk, inode, **_facts(flags, None, "")))
        parent, name = disk.place(rest, start=start)
        found = parent.names.get(name)
        if found is None:
            if not flags & os.O_CREAT:
                raise _error(FileNotFoundError, errno.ENOENT, path)
            disk.wrote(f"create {path}")
            disk.need_room()
            found = File()
            parent.change(Change(None, name, found))
        elif flags & os.O_CREAT and flags & os.O_EXCL:
            raise _error(FileExistsError, errno.EEXIST, path)
        elif flags & os.O_DIRECTORY and not isinstance(found, Folder):
            raise _error(NotADirectoryError, errno.ENOTDIR, path)
        if writes and flags & os.O_TRUNC and isinstance(found, File) and found.data:
            disk.wrote(f"truncate {path}")
            found.data.clear()
            found.dirty = True
        return self._give(Handle(disk, found, **_facts(flags, parent, name)))

    def close(self, fd: int) -> None:
        if fd not in self._open:
            check_alive()
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        self._drop(fd)

    def dup(self, fd: int) -> int:
        twin = self._of(fd)
        return self._give(twin)

    def read(self, fd: int, count: int) -> bytes:
        handle = self._of(fd)
        data = self.pread(fd, count, handle.position)
        handle.position += len(data)
        return data

    def pread(self, fd: int, count: int, position: int) -> bytes:
        inode = self._of(fd).inode
        if not isinstance(inode, File):
            raise _error(IsADirectoryError, errno.EISDIR, "")
        return bytes(inode.data[position : position + count])

    def write(self, fd: int, data: bytes | memoryview) -> int:
        handle = self._of(fd)
        file = handle.inode
        if not isinstance(file, File):
            raise _error(IsADirectoryError, errno.EISDIR, "")
        handle.disk.wrote(f"write {handle.name}")
        at = len(file.data) if handle.append else handle.position
        if at + len(data) > len(file.data):
            handle.disk.need_room()
        file.data[at : at + len(data)] = data
        file.dirty = True
        handle.position = at + len(data)
        self._modified(handle)
        return len(data)

    def writev(self, fd: int, parts: Sequence[bytes | memoryview]) -> int:
        return self.write(fd, b"".join(parts))

    def ftruncate(self, fd: int, length: int) -> None:
        handle = self._of(fd)
        if isinstance(handle.inode, File) and len(handle.inode.data) > length:
            handle.disk.wrote(f"truncate {handle.name}")
            del handle.inode.data[length:]
            handle.inode.dirty = True

    def posix_fallocate(self, fd: int, offset: int, length: int) -> None:
        handle = self._of(fd)
        handle.disk.wrote(f"allocate {handle.name}")
        handle.disk.need_room()
        if isinstance(handle.inode, File):
            missing = offset + length - len(handle.inode.data)
            handle.inode.data.extend(bytes(max(missing, 0)))
            handle.inode.dirty = True

    def fchmod(self, fd: int, mode: int) -> None:
        self._of(fd)

    def fsync(self, fd: int) -> None:
        handle = self._of(fd)
        handle.disk.wrote(f"fsync {handle.name}")
        handle.inode.sync()

    fdatasync = fsync

    # -- names -------------------------------------------------------------------------------

    def listdir(self, path: str | int) -> list[str]:
        if isinstance(path, int):
            inode = self._of(path).inode
        else:
            disk, start, rest = self._start(path, None)
            inode = disk.find(rest, start=start)
        if not isinstance(inode, Folder):
            raise _error(NotADirectoryError, errno.ENOTDIR, str(path))
        return list(inode.names)

    def stat(self, path: str, *, dir_fd: int | None = None) -> Any:  # noqa: ANN401 - as what it stands for takes it
        disk, start, rest = self._start(path, dir_fd)
        inode = disk.find(rest, start=start)
        size = len(inode.data) if isinstance(inode, File) else 0
        return SimpleNamespace(st_size=size, st_mtime_ns=0)

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        disk, start, rest = self._start(path, None)
        if not rest:
            raise _error(FileExistsError, errno.EEXIST, path)
        parent, name = disk.place(rest, start=start)
        if name in parent.names:
            raise _error(FileExistsError, errno.EEXIST, path)
        disk.wrote(f"mkdir {path}")
        disk.need_room()
        parent.change(Change(None, name, Folder()))

    def makedirs(self, path: str, mode: int = 0o777, *, exist_ok: bool = False) -> None:
        parent = posixpath.dirname(path)
        if parent and self.look(path) is None and self.look(parent) is None:
            self.makedirs(parent, mode, exist_ok=True)
        try:
            self.mkdir(path, mode)
        except FileExistsError:
            if not exist_ok:
                raise

    def unlink(self, path: str, *, dir_fd: int | None = None) -> None:
        disk, start, rest = self._start(path, dir_fd)
        parent, name = disk.place(rest, start=start)
        if name not in parent.names:
            raise _error(FileNotFoundError, errno.ENOENT, path)
        disk.wrote(f"unlink {path}")
        parent.change(Change(name, None, None))

    def rename(
        self, old: str, new: str, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
    ) -> None:
        disk, start, rest = self._start(old, src_dir_fd)
        parent, name = disk.place(rest, start=start)
        inode = parent.names.get(name)
        if inode is None:
            raise _error(FileNotFoundError, errno.ENOENT, old)
        _, to_start, to_rest = self._start(new, dst_dir_fd)
        to_parent, to_name = disk.place(to_rest, start=to_start)
        if to_parent is not parent:
            raise AssertionError("agent and shim rename within a folder only")
        disk.wrote(f"rename {old} to {new}")
        parent.change(Change(name, to_name, inode))
        if parent.watched is not None:
            parent.watched(to_name)

    replace = rename

    def link(
        self,
        old: str,
        new: str,
        *,
        dst_dir_fd: int | None = None,
        follow_symlinks: bool = True,
    ) -> None:
        disk, to_start, to_rest = self._start(new, dst_dir_fd)
        if old.startswith(_OPEN_FILES):
            inode = self._of(int(old.removeprefix(_OPEN_FILES))).inode
        else:
            _, start, rest = self._start(old, None)
            inode = disk.find(rest, start=start)
        parent, name = disk.place(to_rest, start=to_start)
        if name in parent.names:
            raise _error(FileExistsError, errno.EEXIST, new)
        disk.wrote(f"link {new}")
        disk.need_room()
        parent.change(Change(None, name, inode))

    def remove_tree(self, path: str) -> None:
        """Delete a folder with all that is in it, a name at a time."""
        disk, start, rest = self._start(path, None)
        try:
            inode = disk.find(rest, start=start)
        except FileNotFoundError:
            return
        if isinstance(inode, Folder):
            for name in list(inode.names):
                self.remove_tree(posixpath.join(path, name))
        self.unlink(path)
        if isinstance(inode, Folder):
            inode.gone = True

    # -- locks -------------------------------------------------------------------------------

    def flock(self, fd: int, operation: int) -> None:
        """As `fcntl.flock` with LOCK_NB."""
        inode = self._of(fd).inode
        if not isinstance(inode, Folder):
            raise AssertionError("locks are on folders (architecture 5.2)")  # noqa: TRY004 - a rule, not a type
        exclusive = bool(operation & LOCK_EX)
        others = {holder: held for holder, held in inode.locks.items() if holder != fd}
        if any(others.values()) or (exclusive and others):
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))
        inode.locks[fd] = exclusive

    # -- within ------------------------------------------------------------------------------

    def _disk(self, path: str) -> tuple[Disk, str]:
        name, _, rest = path.lstrip("/").partition("/")
        return self.disks[name], rest

    def _start(self, path: str, dir_fd: int | None) -> tuple[Disk, Folder, str]:
        check_alive()
        if dir_fd is not None:
            handle = self._of(dir_fd)
            if not isinstance(handle.inode, Folder):
                raise _error(NotADirectoryError, errno.ENOTDIR, path)
            return handle.disk, handle.inode, path
        disk, rest = self._disk(path)
        return disk, disk.root, rest

    def _above(self, path: str, start: Folder, dir_fd: int | None) -> Folder:
        """Only the spools' folder is ever looked at from below (`create_record_at`)."""
        if dir_fd is None:
            raise AssertionError(path)
        spools = self._of(dir_fd).disk.find("spool")
        if not isinstance(spools, Folder) or (
            start not in spools.names.values() and not start.gone
        ):
            raise AssertionError(f"{path} of what is no spool")
        return spools

    def _of(self, fd: int) -> Handle:
        check_alive()
        handle = self._open.get(fd)
        if handle is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return handle

    def _give(self, handle: Handle) -> int:
        self._next += 1
        self._open[self._next] = handle
        return self._next

    def _drop(self, fd: int) -> None:
        handle = self._open.pop(fd)
        if isinstance(handle.inode, Folder):
            handle.inode.locks.pop(fd, None)

    def _modified(self, handle: Handle) -> None:
        parent = handle.parent
        if parent is not None and parent.watched is not None:
            parent.watched(handle.name)


def _facts(flags: int, parent: Folder | None, name: str) -> dict[str, Any]:
    append = bool(flags & os.O_APPEND)
    return {"append": append, "parent": parent, "name": name, "process": CURRENT.get()}


def _error(kind: type[OSError], number: int, path: str) -> OSError:
    return kind(number, os.strerror(number), path)
