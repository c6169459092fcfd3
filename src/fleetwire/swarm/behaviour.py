"""How simulated agents behave: what a task takes, writes and ends with."""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from fleetwire.core import limits

_LINE: Final = b"a line of output of a simulated task, as long as lines often are\n"


class Behaviour(msgspec.Struct, frozen=True):
    """What every simulated agent does, whatever it is asked to run.

    A task lasts `latency_s`, writes `output_bytes` to stdout and exits with 0, or with 1 for
    `fail_share` (0 to 1) of all tasks. Its output travels in frames of `frame_bytes`.
    `heartbeat_s` is None where the server's word counts. `storm_s`: so often all links break at
    once; the agents come back as real ones do.
    """

    latency_s: float = 0.0
    output_bytes: int = 0
    frame_bytes: int = 256 * limits.KIB
    fail_share: float = 0.0
    heartbeat_s: float | None = None
    storm_s: float | None = None


class Output:
    """What each task writes, with its hash."""

    def __init__(self, size: int) -> None:
        self.payload: Final = (_LINE * (size // len(_LINE) + 1))[:size]
        self.sha256: Final = hashlib.sha256(self.payload).hexdigest()


class Failures:
    """Says which tasks fail: exactly the share, spread evenly, and the same in every test."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._asked = 0

    def next(self) -> bool:
        """Say whether the next task fails; of n tasks, the floor of n times the share do."""
        before = _floor(self._asked * self._share)
        self._asked += 1
        return _floor(self._asked * self._share) > before


def _floor(value: float) -> int:
    # 0.1 * 30 is 2.9999...: a share is given in a few digits, and is meant so.
    return int(value + 1e-9)
