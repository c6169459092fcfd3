"""The local policy in force on this node: found, proven to be the administrator's, read anew when
it changes.

A file that is absent allows everything, as ever. A file that is there and cannot be trusted, read
or understood denies everything, and so does one that was named with `--policy` and is absent: this
never fails open.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import threading
from typing import Any, Final, Literal, NamedTuple, Self, TypeAlias

import msgspec

from fleetwire.agent import policy_text
from fleetwire.agent.drivers import Unable
from fleetwire.agent.policy_text import BadPolicy
from fleetwire.core import limits
from fleetwire.core.policy import Ask, Policy, refusal

DEFAULT: Final = "/etc/fleetwire/policy.yaml"
_log = logging.getLogger(__name__)
# What tells one content of a file from another; any write, chmod or rename changes one of them.
_Mark: TypeAlias = tuple[int, ...]


class Standing(NamedTuple):
    """What is in force. `problem` says why everything is denied, where it is."""

    state: Literal["absent", "in force", "refused"]
    policy: Policy = Policy()
    problem: str = ""


class LocalPolicy:
    """One per agent. `path` is the file; one that was asked for must be there. In force from the
    first moment on. Any thread may ask.
    """

    def __init__(self, path: str = "") -> None:
        self.path = os.path.abspath(path or DEFAULT)
        self._named = bool(path)
        self._mark: _Mark | str | None = None
        self._standing = Standing("absent")
        self._looking = threading.Lock()
        self.look()

    def look(self) -> Standing:
        """Return what is in force now; reads the file only where it has changed. Blocks for some
        microseconds.
        """
        # Orders are prepared in a thread: what one thread has read is not to be taken for what
        # another has seen.
        with self._looking:
            return self._look()

    def _look(self) -> Standing:
        found: _Mark | str
        data = b""
        try:
            with _Trusted(self.path) as file:
                found = file.mark
                if found != self._mark:
                    data = file.read()
                    if file.look() != found:
                        found = "it is being written"
        except FileNotFoundError:
            found = "it is named in the agent's settings and is not there" if self._named else ""
        except _Untrusted as error:
            found = str(error)
        except OSError as error:
            found = f"it cannot be read: {error.strerror}"
        if found != self._mark:
            self._standing = self._read(found, data)
            self._mark = found
        return self._standing

    @property
    def standing(self) -> Standing:
        """What was in force when it was looked at last."""
        return self._standing

    def check(self, ask: Ask) -> None:
        """Raise Unable, which names file and line, when this must not be done here."""
        standing = self.look()
        if standing.state == "refused":
            raise Unable(
                f"refused by {self.path}: {standing.problem}.",
                hint="Until the node's administrator mends it, everything is denied.",
            )
        against = refusal(standing.policy, ask)
        if against is not None:
            raise Unable(
                f"refused by {self.path} line {against.line}: {against.why}.",
                hint="Only the node's administrator can change it.",
            )

    def capacity(self, configured: int) -> int:
        """Return how many attempts may run at once."""
        most = self._standing.policy.max_concurrent
        return configured if most is None else min(configured, int(most.value))

    def max_output(self) -> int:
        """Return the most bytes of output of an attempt; 0 for no end."""
        most = self._standing.policy.max_output
        return 0 if most is None else int(most.value)

    def facts(self) -> dict[str, Any]:
        """Return what the inventory says of it: to be read, never to be changed from afar."""
        standing = self._standing
        facts: dict[str, Any] = {"file": self.path, "state": standing.state}
        if standing.problem:
            facts["problem"] = standing.problem
        if standing.state == "in force":
            facts |= _shown(standing.policy)
        if len(msgspec.json.encode(facts)) > _FACTS_BYTES:
            return {"file": self.path, "state": standing.state, "rules": "too many to be shown"}
        return facts

    def _read(self, found: _Mark | str, data: bytes) -> Standing:
        if found == "":
            return Standing("absent")
        if isinstance(found, str):
            problem = found
        else:
            try:
                policy = policy_text.read(data)
            except BadPolicy as error:
                problem = f"{error.detail}. {error.hint}".rstrip(".")
            else:
                _log.info("the local policy %s is in force", self.path)
                return Standing("in force", policy)
        _log.error("the local policy %s denies everything: %s", self.path, problem)
        return Standing("refused", problem=problem)


# To be passed and looked at, which needs no right to list it.
_FOLDER: Final = os.O_DIRECTORY | getattr(os, "O_PATH", os.O_RDONLY)
_FACTS_BYTES: Final = 16 * limits.KIB


def _shown(policy: Policy) -> dict[str, Any]:
    facts: dict[str, Any] = {
        name: "allow" if switch.allowed else "deny" for name, switch in policy.actions.items()
    }
    for name, listing in policy.lists.items():
        said = {"deny": [one.text for one in listing.deny]} if listing.deny else {}
        if listing.allow is not None:
            said["allow"] = [one.text for one in listing.allow]
        facts[name] = said
    for most_of in ("max_concurrent", "max_output", "max_timeout"):
        most = getattr(policy, most_of)
        if most is not None:
            facts[most_of] = most.value
    return facts


class _Untrusted(Exception):
    """The file is not provably the administrator's."""


class _Trusted:
    """The file, opened so that nobody but root, or the agent's own user, can have put it there.

    Every folder on the way is opened from the one above it and looked at while it is open: owned
    by root or by us, not to be written by others (but for folders with the sticky bit, in which
    others can touch only their own), and no name is a symbolic link.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1
        self.mark: _Mark = ()

    def __enter__(self) -> Self:
        folder = os.open("/", _FOLDER | os.O_CLOEXEC)
        try:
            *above, name = self._path.strip("/").split("/")
            walked = ""
            for part in above:
                walked = f"{walked}/{part}"
                below = _open(walked, part, folder, _FOLDER)
                os.close(folder)
                folder = below
                _check(os.fstat(folder), walked, folder=True)
            self._descriptor = _open(self._path, name, folder, os.O_NONBLOCK)
        finally:
            os.close(folder)
        try:
            self.mark = self.look()
        except _Untrusted:
            os.close(self._descriptor)
            raise
        return self

    def look(self) -> _Mark:
        """Return what tells this content from another."""
        facts = os.fstat(self._descriptor)
        _check(facts, self._path, folder=False)
        return (
            facts.st_dev,
            facts.st_ino,
            facts.st_size,
            facts.st_mtime_ns,
            facts.st_ctime_ns,
        )

    def read(self) -> bytes:
        """Return the content, one byte more than the limit at most."""
        return os.pread(self._descriptor, limits.POLICY_BYTES + 1, 0)

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _open(path: str, name: str, folder: int, flags: int) -> int:
    try:
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=folder)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENOTDIR}:
            raise _Untrusted(
                f"{path} is a symbolic link or no folder: name the file by its real path"
            ) from error
        raise


def _check(facts: os.stat_result, path: str, *, folder: bool) -> None:
    if facts.st_uid not in {0, os.geteuid()}:
        raise _Untrusted(f"{path} is owned by user {facts.st_uid}: chown it to root")
    if not folder and not stat.S_ISREG(facts.st_mode):
        raise _Untrusted(f"{path} is no regular file")
    shared = folder and facts.st_mode & stat.S_ISVTX
    if facts.st_mode & 0o022 and not shared:
        mode = stat.S_IMODE(facts.st_mode)
        raise _Untrusted(f"{path} can be written by others (mode {mode:o}): chmod go-w it")
