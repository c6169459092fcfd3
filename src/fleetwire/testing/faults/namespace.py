"""A network namespace of the lab's own, in which packets can be dropped without harm to anybody.

The command starts itself anew inside one: everything of a round, the server and the agents, then
lives on the loopback of that namespace, and nftables rules there concern nobody else.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Literal, Self, TypeAlias

from fleetwire.testing.faults.stage import NotRun

Way: TypeAlias = Literal["up", "down", "both"]
WAYS: Final[tuple[Way, ...]] = ("up", "down", "both")
_INSIDE: Final = "FLEETWIRE_LAB_NAMESPACE"
_TABLE: Final = "fleetwire_lab"


def check() -> None:
    """Raise NotRun where packets cannot be dropped in a namespace of our own."""
    if missing := _missing():
        raise NotRun(missing)


def is_needed() -> bool:
    """Say whether the command has to start itself anew, and can."""
    return _INSIDE not in os.environ and _missing() is None


def enter(arguments: Sequence[str]) -> int:
    """Run the command with these arguments in a new namespace; return its exit code."""
    command = ("unshare", "--net", sys.executable, "-m", "fleetwire.testing.faults", *arguments)
    environment = {**os.environ, _INSIDE: "1"}
    return subprocess.run(command, env=environment, check=False).returncode


def _missing() -> str | None:
    for program in ("unshare", "ip", "nft"):
        if shutil.which(program) is None:
            return f"{program} is not installed (apt-get install util-linux iproute2 nftables)"
    if os.geteuid() != 0:
        return "network namespaces and nftables need root"
    if not _works("unshare", "--net", "nft", "list", "ruleset"):
        return "this machine allows no network namespace, or no nftables in it"
    return None


def _path(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise NotRun(f"{program} is not installed")
    return found


def _works(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


class Filter:
    """Rules that drop packets of TCP ports of the loopback. A context manager; when it is left,
    nothing is dropped any more.
    """

    def __init__(self) -> None:
        self._ports: dict[int, Way] = {}

    def __enter__(self) -> Self:
        if _INSIDE not in os.environ:
            raise NotRun("it runs only in a namespace of its own, which the command makes")
        self._apply()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ports.clear()
        self._apply()

    def drop(self, port: int, way: Way) -> None:
        """Drop what goes to the port (`up`), what comes from it (`down`), or both."""
        self._ports[port] = way
        self._apply()

    def accept(self, port: int) -> None:
        """Let everything through again."""
        self._ports.pop(port, None)
        self._apply()

    def _apply(self) -> None:
        rules = []
        for port, way in self._ports.items():
            rules += [f"tcp dport {port} drop"] if way in {"up", "both"} else []
            rules += [f"tcp sport {port} drop"] if way in {"down", "both"} else []
        # One transaction: the table is made where it is missing, emptied, and filled.
        script = (
            f"table inet {_TABLE} {{}}\ndelete table inet {_TABLE}\n"
            f"table inet {_TABLE} {{ chain out {{ type filter hook output priority 0;\n"
            + "\n".join(rules)
            + "\n}\n}\n"
        )
        command = [_path("nft"), "-f", "-"]
        subprocess.run(command, input=script.encode(), check=True)


def set_up() -> None:
    """Bring the namespace's loopback up; nothing outside one of our own."""
    if _INSIDE in os.environ:
        subprocess.run([_path("ip"), "link", "set", "lo", "up"], check=True)
