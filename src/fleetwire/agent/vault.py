"""Where secrets wait for their task on this node: in memory where there is a tmpfs, never in the
attempt's folder. What is done there is `fleetwire.shim.delivery`'s.

One folder per state directory, for its owner only. It stands in /run (root's alone) or in
/dev/shm, which outlive the agent and the login of who started it, and no reboot. A node that has
neither keeps them below the state directory: then they are on its disk until they are removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import stat
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from fleetwire.shim import delivery
from fleetwire.shim.delivery import Secret

_MOUNTS: Final = "/proc/self/mounts"
_log = logging.getLogger(__name__)


class Vault:
    """The deliveries of one state directory. `places`: the mounts to try, best first."""

    def __init__(self, state: str, places: Sequence[str] | None = None) -> None:
        self._state = state
        self._places = _memory() if places is None else places
        self._path: str | None = None
        self._delivered: set[str] = set()

    @property
    def path(self) -> str:
        """The folder, which is made where it is not there yet. Raises OSError."""
        if self._path is None or not os.path.isdir(self._path):
            self._path = self._choose()
        return self._path

    @property
    def is_in_memory(self) -> bool:
        """Whether it stands on a tmpfs, or will once there is a secret. A look: makes nothing."""
        paths = [self._in(place) for place in self._places]
        return any(not os.path.lexists(path) or _is_ours(path) for path in paths)

    def deliver(self, attempt: str, secrets: Iterable[Secret], *, other: bool = False) -> str:
        """Leave them for the attempt's shim, whose task runs as another user when `other`; return
        the folder. Raises OSError.
        """
        if other:
            os.chmod(self.path, 0o711)  # noqa: S103 (to pass, not to list)
        folder = os.path.join(self.path, attempt)
        self._delivered.add(attempt)
        delivery.deliver(folder, secrets)
        return folder

    def withdraw(self, attempt: str) -> None:
        """Remove what was delivered for an attempt by this agent, if it is there still."""
        if attempt in self._delivered:
            self._delivered.discard(attempt)
            self._remove(attempt)

    def sweep(self, lives: Callable[[str], bool]) -> None:
        """Remove what earlier agents left for attempts of which nothing lives.

        Once, at the start, before anything new is delivered: an attempt that has not begun is
        prepared anew, and one whose shim has died is to be buried.
        """
        for place in [*self._places, self._state]:
            path = self._in(place)
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                if not _is_ours(path):
                    continue
                for attempt in os.listdir(path):
                    if not lives(attempt):
                        self._remove(attempt, path)

    def _remove(self, attempt: str, path: str | None = None) -> None:
        folder = os.path.join(path or self.path, attempt)
        if not delivery.remove(folder):
            _log.error("%s cannot be removed: a secret may stand there", folder)

    def _choose(self) -> str:
        for place in self._places:
            path = self._in(place)
            try:
                os.makedirs(path, mode=0o700, exist_ok=True)
                if _is_ours(path):
                    return path
            except OSError as error:
                _log.debug("%s cannot be used: %s", path, error)
        path = self._in(self._state)
        os.makedirs(path, mode=0o700, exist_ok=True)
        _log.warning("this node has no tmpfs for secrets: they stand in %s while needed", path)
        return path

    def _in(self, place: str) -> str:
        if place == self._state:
            return os.path.join(place, "secrets")
        # Others may make folders in /dev/shm too: whose it is, is looked at.
        name = hashlib.sha256(os.path.realpath(self._state).encode()).hexdigest()[:16]
        return os.path.join(place, f"fleetwire-{os.geteuid()}-{name}")


def _is_ours(path: str) -> bool:
    """Whether it is a folder, no link, of this user, that nobody else may read or write."""
    status = os.lstat(path)
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and not stat.S_IMODE(status.st_mode) & 0o066
    )


def _memory() -> tuple[str, ...]:
    """Return the mounts that are memory and that this user may write, best first."""
    if sys.platform != "linux":
        return ()
    with open(_MOUNTS, encoding="utf-8", errors="replace") as file:
        mounts = {line.split()[1] for line in file if line.split()[2:3] == ["tmpfs"]}
    shared = "/dev/shm"  # noqa: S108 (whose a folder there is, is looked at)
    wanted = ("/run", shared) if os.geteuid() == 0 else (shared,)
    return tuple(each for each in wanted if each in mounts and os.access(each, os.W_OK))
