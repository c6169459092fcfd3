"""The agent's word on itself: who this process is, and how the one before it ended.

`life.json` outlives the process that wrote it. It is written at the start, when the kernel has
killed something for want of memory, and, durably, when the agent leaves in order: so whoever finds
it without `left` knows that its writer died. What follows from it the server decides
(core.absences).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Final

import msgspec

from fleetwire.agent.files import write_atomically
from fleetwire.core.absences import Ending, Life
from fleetwire.shim import oom

NAME: Final = "life.json"
_log = logging.getLogger(__name__)


class Record(msgspec.Struct, frozen=True):
    """The content of life.json. `agent` is the random id of the process, `kills` the kernel's
    count of kills for want of memory when it was last looked at, `began` seconds of the
    monotonic clock.
    """

    agent: str
    boot_id: str
    pid: int
    began: float
    kills: int | None = None
    left: bool = False


class LifeBook:
    """One per agent process. `slept` is seconds that the machine was suspended since its boot,
    `wall` microseconds since 1970.
    """

    def __init__(
        self,
        state: str,
        *,
        agent: str,
        boot_id: str,
        slept: Callable[[], float],
        wall: Callable[[], int],
        monotonic: Callable[[], float],
    ) -> None:
        self._path = os.path.join(state, NAME)
        self._slept = slept
        self._began = wall()
        self._counter = oom.counter()
        self._record = Record(agent, boot_id, os.getpid(), monotonic(), oom.kills(self._counter))
        before = _read(self._path)
        self._before = None if before is None else ending(before, self._record)
        self._write(sync=False)

    def life(self) -> Life:
        """Return what the next hello says."""
        return Life(
            agent=self._record.agent,
            began=self._began,
            slept=round(max(0.0, self._slept()), 3),
            before=self._before,
        )

    def look(self) -> None:
        """Note the kernel's count where it has grown: whoever comes after a kill that hit us
        knows then how many came with it.
        """
        kills = oom.kills(self._counter)
        if kills != self._record.kills:
            self._record = msgspec.structs.replace(self._record, kills=kills)
            self._write(sync=False)

    def leave(self) -> None:
        """Note, durably, that this agent leaves in order: the machine may be going down."""
        self._record = msgspec.structs.replace(self._record, left=True)
        self._write(sync=True)

    def _write(self, *, sync: bool) -> None:
        try:
            write_atomically(self._path, msgspec.json.encode(self._record), sync=sync)
        except OSError as error:
            # A full disk ends no agent; the next one will say that this one died.
            _log.warning("%s cannot be written: %s", self._path, error.strerror)


def ending(before: Record, now: Record) -> Ending:
    """Say how the agent before this one ended."""
    if before.left or before.boot_id != now.boot_id:
        return Ending(boot_id=before.boot_id, left=before.left)
    return Ending(
        boot_id=before.boot_id,
        oom=before.pid in oom.victims(before.began),
        oom_kills=oom.grown(before.kills, now.kills),
    )


def _read(path: str) -> Record | None:
    try:
        with open(path, "rb") as file:
            return msgspec.json.decode(file.read(), type=Record)
    except (FileNotFoundError, msgspec.DecodeError):
        return None  # torn by a crash, or never written: nothing is known
