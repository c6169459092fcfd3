"""How secrets come to a task: the agent delivers, the shim takes and places, the end removes.

`{folder}/.values`, 0600, is written by the agent before it asks the spawner and unlinked by the
shim as soon as it has read it; it is JSON, a list of `{name, as, to, value}` with the value in
base64. What the task gets as files the shim writes beside it, 0600. The folder stands on a tmpfs
where the node has one (`agent.vault`), so that none of it is ever on a disk; it goes when nothing
of the attempt lives any more, whoever sees that: the shim, or who buries it. The spawner, whose
memory every later shim is a copy of, never sees a value, and a shim that did lives no second
attempt.
"""

import base64
import json
import os
import shutil
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

VALUES = ".values"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class DeliveryError(OSError):
    """What was delivered is not there, or cannot be used."""


class Secret(NamedTuple):
    """One secret of a task: `how` is `file` or `env`, `to` the file's or variable's name."""

    name: str
    how: str
    to: str
    value: bytes


def deliver(folder: str, secrets: Iterable[Secret]) -> None:
    """Write them for the shim, in the place of an older delivery. Raises OSError.

    Not fsynced: it has to be there for who is asked next, not after a power loss.
    """
    remove(folder)
    os.mkdir(folder, 0o700)
    rows = [
        {
            "name": each.name,
            "as": each.how,
            "to": each.to,
            "value": base64.b64encode(each.value).decode(),
        }
        for each in secrets
    ]
    _write(os.path.join(folder, VALUES), json.dumps(rows).encode())


def take(folder: str) -> list[Secret]:
    """Read what was delivered, and leave no copy of it in the file. [] where `folder` is "".

    Raises DeliveryError when it is not there (taken before; or the node was started anew).
    """
    if not folder:
        return []
    path = os.path.join(folder, VALUES)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise DeliveryError(error.errno, f"its secrets are not there: {error.strerror}") from error
    with open(fd, "rb") as file:
        os.unlink(path)
        data = file.read()
    try:
        return [_secret(row) for row in json.loads(data)]
    except (ValueError, TypeError, KeyError):
        # Nothing of the content in the message.
        raise DeliveryError("its secrets cannot be read as they were delivered") from None


def place(folder: str, secrets: Iterable[Secret], owner: tuple[int, int] | None = None) -> None:
    """Write those that the task gets as files, for the user and group that it runs as where that
    is not this process's own. Raises OSError.
    """
    for secret in secrets:
        if secret.how == "file":
            _write(os.path.join(folder, secret.to), secret.value, owner)
    if folder and owner is not None:
        # Last: from here on its owner may put there what they like.
        os.chown(folder, *owner, follow_symlinks=False)


def environment(secrets: Iterable[Secret]) -> dict[str, str]:
    """Those that the task gets as environment variables."""
    return {each.to: os.fsdecode(each.value) for each in secrets if each.how == "env"}


def remove(folder: str) -> bool:
    """Remove the folder and all in it, whatever the task did to it; False when that failed.

    Symbolic links are removed, never followed.
    """

    def unlock(function: Callable[[str], object], path: str, _: object) -> None:
        # The task may have taken the rights away; and somebody else may be removing as well. Root
        # needs none, and would change what another user's link points at.
        if os.geteuid() == 0:
            return
        try:
            os.chmod(os.path.dirname(path), 0o700)
            function(path)
        except OSError:
            return  # the last look below tells

    if folder and os.path.lexists(folder):
        shutil.rmtree(folder, onerror=unlock)
    return not (folder and os.path.lexists(folder))


def _secret(row: dict[str, Any]) -> Secret:
    how, to = str(row["as"]), str(row["to"])
    if how not in {"file", "env"} or not to or "/" in to or to.startswith("."):
        raise ValueError("not a name for a file or a variable")
    return Secret(str(row["name"]), how, to, base64.b64decode(row["value"], validate=True))


def _write(path: str, data: bytes, owner: tuple[int, int] | None = None) -> None:
    fd = os.open(path, _NEW, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
        if owner is not None:
            os.fchown(fd, *owner)
