"""What every long-lived part of the agent is doing now, in a sentence a person understands.

Written to `agent-status.json` soon after it changes and never more than once a second; an idle
agent writes nothing. `fleetwire agent status` reads the file, and works while the agent hangs.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Final

import msgspec

from fleetwire.agent.files import write_atomically

NAME: Final = "agent-status.json"
_PACE_S: Final = 1.0
_log = logging.getLogger(__name__)


class Doing(msgspec.Struct, frozen=True):
    """A sentence and since when it holds (microseconds since 1970)."""

    sentence: str
    since: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The content of agent-status.json."""

    pid: int
    node: str
    name: str
    version: str
    started: int
    written: int
    parts: dict[str, Doing] = {}


class Status:
    """Collects the sentences. `wall` gives microseconds since 1970."""

    def __init__(self, state: str, *, version: str, wall: Callable[[], int]) -> None:
        self._path = os.path.join(state, NAME)
        self._wall = wall
        self._parts: dict[str, Doing] = {}
        self._report = Report(
            pid=os.getpid(), node="", name="", version=version, started=wall(), written=0
        )
        self._timer: asyncio.TimerHandle | None = None

    def introduce(self, node: str, name: str) -> None:
        """Say who this is, once it is known."""
        self._report = msgspec.structs.replace(self._report, node=node, name=name)

    def say(self, part: str, sentence: str) -> None:
        """Note what a part is doing. The same sentence again keeps its time."""
        known = self._parts.get(part)
        if known is not None and known.sentence == sentence:
            return
        self._parts[part] = Doing(sentence, self._wall())
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_PACE_S, self._due)

    def write(self) -> None:
        """Write the file now, if the disk has room for it: it is for people, and nothing depends
        on it. Not fsynced: after a power loss it would be of no interest.
        """
        report = msgspec.structs.replace(
            self._report, written=self._wall(), parts=dict(sorted(self._parts.items()))
        )
        data = msgspec.json.format(msgspec.json.encode(report), indent=2)
        try:
            write_atomically(self._path, data + b"\n", sync=False)
        except OSError as error:
            _log.warning("%s cannot be written: %s", self._path, error.strerror)

    def _due(self) -> None:
        self._timer = None
        self.write()


def read(state: str) -> Report | None:
    """Return the last report of the agent with this state directory, None when there is none."""
    try:
        with open(os.path.join(state, NAME), "rb") as file:
            return msgspec.json.decode(file.read(), type=Report)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def describe(report: Report | None, *, running: bool, now: int) -> str:
    """Return the report for a person: a line for each part, with how long it has been so."""
    if report is None:
        return "No agent has run with this state directory yet."
    lines = [
        f"agent {report.name or '(not enrolled)'}, {report.version}, "
        + (f"running as process {report.pid}" if running else "not running; this is its last word")
    ]
    width = max((len(part) for part in report.parts), default=0)
    lines += [
        f"  {part:<{width}}  {doing.sentence} (for {_span(now - doing.since)})"
        for part, doing in report.parts.items()
    ]
    return "\n".join(lines)


def _span(us: int) -> str:
    seconds = max(0, us) // 1_000_000
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
