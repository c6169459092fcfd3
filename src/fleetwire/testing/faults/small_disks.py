"""A system whose disks are small: the server's data and each node's state on a tmpfs of its own."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from fleetwire.testing.disks import CannotMount, SmallDisk
from fleetwire.testing.faults.stage import NotRun
from fleetwire.testing.faults.system import System

SERVER_BYTES: Final = 64 << 20
NODE_BYTES: Final = 96 << 20


def check() -> None:
    """Raise NotRun where nothing can be mounted for all to see."""
    if os.geteuid() != 0:
        raise NotRun("mounting a tmpfs needs root")


class SmallDisks(System):
    """A System with a limited disk below the server's data and below each node's state."""

    def __enter__(self) -> Self:
        self._disks: dict[Path, SmallDisk] = {}
        with contextlib.ExitStack() as exits:
            sizes = {self.lab.data: SERVER_BYTES}
            sizes |= {self.lab.state(name): NODE_BYTES for name in self.names}
            for folder, size in sizes.items():
                try:
                    disk = exits.enter_context(SmallDisk(folder, size))
                except CannotMount as missing:
                    raise NotRun(str(missing)) from missing
                if disk.prefix:
                    raise NotRun("a tmpfs can be mounted in a namespace only")
                self._disks[folder] = disk
            super().__enter__()
            self._mounts = exits.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, traceback)
        self._mounts.close()

    def fill(self, folder: Path) -> None:
        """Leave no free byte on the disk of a folder."""
        self._disks[folder].fill()

    def free(self, folder: Path) -> None:
        """Give the room back."""
        self._disks[folder].free()

    def restore(self) -> None:
        """As a System's; disks have room again."""
        for disk in self._disks.values():
            disk.free()
        super().restore()
