"""Disks that are small and can be full: a tmpfs of a stated size, mounted for one test.

Mounting takes rights. Root has them where its container gave them; everybody else, and root in a
container without, tries a user namespace of their own, in which a holder process keeps the mount.
Processes that shall see the disk are started behind `prefix`; the test looks at it through
`seen`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_BLOCK: Final = 64 * 1024
# Runs what it is given, says so, and lives until its stdin ends.
_HOLD: Final = '"$@" && echo held && exec cat'


class CannotMount(Exception):
    """This machine lets nobody mount a file system here; the message says what was tried."""


class SmallDisk:
    """A context manager: a tmpfs of `size` bytes at `path`, which is created."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        self.prefix: tuple[str, ...] = ()
        self._holder: subprocess.Popen[bytes] | None = None
        self._mounted = False
        self._fill: int | None = None

    def __enter__(self) -> Self:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        options = f"size={self.size},mode=700"
        mount = [_program("mount"), "-t", "tmpfs", "-o", options, "tmpfs", str(self.path)]
        refused = subprocess.run(mount, capture_output=True, text=True, check=False)
        if refused.returncode == 0:
            self._mounted = True
        else:
            self._hold(mount, refused.stderr.strip())
        return self

    def _hold(self, mount: list[str], refused: str) -> None:
        """Mount it in a namespace that lives as long as its holder."""
        own = [_program("unshare"), "--user", "--map-root-user", "--mount"]
        holder = subprocess.Popen(
            [*own, _program("sh"), "-c", _HOLD, "sh", *mount],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        if holder.stdout is None or holder.stdout.readline() != b"held\n":
            _, why = holder.communicate()
            raise CannotMount(
                f"no small disk could be mounted: {refused}; in a user namespace: "
                f"{why.decode(errors='replace').strip()}. It takes root with the right to mount, "
                "or user namespaces."
            )
        self._holder = holder
        at = ("--target", str(holder.pid), "--user", "--mount", "--preserve-credentials")
        self.prefix = (_program("nsenter"), *at, "--")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.free()
        if self._mounted:
            # Lazily: a process of the test that is just being killed may still hold it.
            subprocess.run([_program("umount"), "--lazy", str(self.path)], check=True)
        if self._holder is not None:
            self._holder.communicate()

    def seen(self, path: Path) -> Path:
        """Return where the test itself finds a file of the disk."""
        if self._holder is None:
            return path
        return Path(f"/proc/{self._holder.pid}/root{path}")

    def fill(self, *, leave: int = 0) -> int:
        """Take all but `leave` bytes of what is free now; return how many were taken."""
        if self._fill is None:
            name = self.seen(self.path) / "filled-by-somebody-else"
            self._fill = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        begun = os.fstat(self._fill).st_size
        os.lseek(self._fill, 0, os.SEEK_END)
        block = bytes(_BLOCK)
        with contextlib.suppress(OSError):  # which ends it
            while self.left() > leave:
                os.write(self._fill, block[: min(_BLOCK, self.left() - leave)])
        return os.fstat(self._fill).st_size - begun

    def left(self) -> int:
        """Return how many bytes are free."""
        facts = os.statvfs(self.seen(self.path))
        return facts.f_bavail * facts.f_frsize

    def free(self) -> None:
        """Give back what `fill` took."""
        if self._fill is not None:
            os.ftruncate(self._fill, 0)
            os.close(self._fill)
            self._fill = None


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if found is None:
        raise CannotMount(f"no small disk could be mounted: there is no program {name}.")
    return found
