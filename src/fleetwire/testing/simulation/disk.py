"""A node's disk: files and names that are durable only once they were fsynced.

What a power loss leaves, by the rules that POSIX gives and no kinder ones: of each folder the
names of its last fsync and a prefix of what was done to it since; of each file the content of its
last fsync and, of what was written since, nothing, a part, or a part whose end is zeros. A rename
is atomic. Locks (`flock`) belong to the open descriptor and go with it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import NamedTuple

from fleetwire.testing.simulation.chance import Chance
from fleetwire.testing.simulation.loop import Process

Watched = Callable[[str], None]


class File:
    """A file: its content now, and as of its last fsync."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.durable = b""
        self.dirty = False

    def sync(self) -> None:
        """Make the content durable."""
        if self.dirty:
            self.durable = bytes(self.data)
            self.dirty = False

    def lose_power(self, chance: Chance) -> None:
        """Keep what a crash leaves."""
        if self.dirty:
            self.data = bytearray(_torn(self.durable, bytes(self.data), chance))
            self.durable = bytes(self.data)
            self.dirty = False


def _torn(before: bytes, now: bytes, chance: Chance) -> bytes:
    how = chance.whole(0, 3)
    if how == 0:
        return before
    if how == 1:
        return now
    cut = chance.whole(0, len(now))
    if now.startswith(before):
        cut = chance.whole(len(before), len(now))
        tail = bytes(chance.whole(0, len(now) - cut)) if how == 3 else b""
        return now[:cut] + tail
    return now[:cut] + before[cut:]


class Change(NamedTuple):
    """What was done to a folder's names: `removed` went, `added` is there now."""

    removed: str | None
    added: str | None
    inode: Inode | None


class Folder:
    """A folder: its names now, as of its last fsync, and what was done in between."""

    def __init__(self) -> None:
        self.names: dict[str, Inode] = {}
        self.durable: dict[str, Inode] = {}
        self.pending: list[Change] = []
        self.watched: Watched | None = None
        self.locks: dict[int, bool] = {}
        self.gone = False

    def change(self, change: Change) -> None:
        """Change the names."""
        _apply(self.names, change)
        self.pending.append(change)

    def sync(self) -> None:
        """Make the names durable."""
        if self.pending:
            self.durable = dict(self.names)
            self.pending.clear()

    def lose_power(self, chance: Chance) -> None:
        """Keep what a crash leaves, here and below."""
        names = self.durable
        for change in self.pending[: chance.whole(0, len(self.pending))]:
            _apply(names, change)
        self.names = names
        self.durable = dict(names)
        self.pending.clear()
        self.watched = None
        self.locks.clear()
        self.gone = False
        for inode in list(names.values()):
            inode.lose_power(chance)


Inode = File | Folder


def _apply(names: dict[str, Inode], change: Change) -> None:
    if change.removed is not None:
        names.pop(change.removed, None)
    if change.added is not None and change.inode is not None:
        names[change.added] = change.inode


class Handle:
    """An open descriptor."""

    def __init__(
        self, disk: Disk, inode: Inode, *, append: bool, parent: Folder | None, name: str,
        process: Process | None,
    ) -> None:  # fmt: skip
        self.disk = disk
        self.inode = inode
        self.append = append
        self.parent = parent
        self.name = name
        self.process = process
        self.position = 0


class Disk:
    """One node's file system. `wrote` is called before each change, and may raise: a crash
    between any two of them is injected there. `full`: nothing new fits.
    """

    def __init__(self) -> None:
        self.root = Folder()
        self.full = False
        self.wrote: Callable[[str], None] = _nothing

    def find(self, path: str, *, start: Folder | None = None) -> Inode:
        """Return what has this path. Raises FileNotFoundError or NotADirectoryError."""
        inode: Inode = self.root if start is None else start
        for part in path.split("/"):
            if not part or part == ".":
                continue
            if not isinstance(inode, Folder):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            found = inode.names.get(part)
            if found is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            inode = found
        return inode

    def place(self, path: str, *, start: Folder | None = None) -> tuple[Folder, str]:
        """Return the folder of a path's last name, and that name."""
        folder, _, name = path.rstrip("/").rpartition("/")
        parent = self.find(folder, start=start)
        if not isinstance(parent, Folder) or parent.gone:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return parent, name

    def need_room(self) -> None:
        """Raise ENOSPC where the disk is full."""
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def lose_power(self, chance: Chance) -> None:
        """Lose what is not durable."""
        self.root.lose_power(chance)


def _nothing(what: str) -> None:
    del what
