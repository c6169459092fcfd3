"""A system whose disks are small: the server's data and each node's state on a tmpfs of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from fleetwire.testing.faults.stage import NotRun
from fleetwire.testing.faults.system import System

SERVER_BYTES: Final = 64 << 20
NODE_BYTES: Final = 96 << 20
_FILLER: Final = "filler"


def check() -> None:
    """Raise NotRun where nothing can be mounted."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        raise NotRun("mounting a tmpfs needs root")


class SmallDisks(System):
    """A System with a limited disk below the server's data and below each node's state."""

    def __enter__(self) -> Self:
        self._mounted: list[Path] = []
        try:
            self._mount(self.lab.data, SERVER_BYTES)
            for name in self.names:
                self._mount(self.lab.state(name), NODE_BYTES)
            return super().__enter__()
        except BaseException:
            self._unmount()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, traceback)
        self._unmount()

    def fill(self, folder: Path) -> None:
        """Leave no free byte on the disk of a folder."""
        with (folder / _FILLER).open("ab", buffering=0) as file:
            size = 1 << 20
            while size:
                try:
                    file.write(b"\0" * size)
                except OSError:
                    size //= 2

    def free(self, folder: Path) -> None:
        """Give the room back."""
        (folder / _FILLER).unlink(missing_ok=True)

    def restore(self) -> None:
        """As a System's; disks have room again."""
        for folder in self._mounted:
            self.free(folder)
        super().restore()

    def _mount(self, folder: Path, size: int) -> None:
        folder.mkdir(parents=True, mode=0o700)
        program = shutil.which("mount")
        if program is None:
            raise NotRun("mount is not installed")
        options = f"size={size},mode=0700"
        done = subprocess.run(
            [program, "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise NotRun(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
        self._mounted.append(folder)

    def _unmount(self) -> None:
        program = shutil.which("umount") or "/bin/umount"
        for folder in reversed(self._mounted):
            subprocess.run([program, "--lazy", str(folder)], check=False)
        self._mounted.clear()
