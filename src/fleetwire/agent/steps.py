"""The step from the last link to the next (core.clones), in `link.json`: durable before the hello
that carries it leaves, so that a crash at any instant repeats it, and never raises a false alarm.

That a step was taken is noted in a file of its own, and without a sync: where a crash loses or
tears the note the same step is repeated, and the server takes it again. So it does where a full
disk takes no new step.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

import msgspec

from fleetwire.agent.errors import IdentityUnreadable
from fleetwire.agent.files import write_atomically
from fleetwire.core.clones import Step, first, next_step

NAME = "link.json"
TAKEN = "link-taken"
_log = logging.getLogger(__name__)


class StepBook:
    """One per agent process. `mark` returns 32 to 64 random characters. Raises IdentityUnreadable
    where `link.json` is there and cannot be used.
    """

    def __init__(self, state: str, mark: Callable[[], str]) -> None:
        self._state = state
        self._mark = mark
        self._last = _read(os.path.join(state, NAME))
        self._is_taken = self._last is not None and _noted(state) == self._last.end

    def begin(self) -> Step | None:
        """Return the step of a new link, durable when this returns; None where there has never
        been one and the disk takes none.
        """
        if self._last is not None and not self._is_taken:
            return self._last
        last = self._last
        step = first(self._mark()) if last is None else next_step(last, self._mark(), taken=True)
        try:
            write_atomically(os.path.join(self._state, NAME), msgspec.json.encode(step))
        except OSError as error:
            _log.warning("the link's step cannot be written: %s", error.strerror)
            return last
        self._last, self._is_taken = step, False
        return step

    def taken(self) -> None:
        """Note that the server took the step."""
        if self._last is None or self._is_taken:
            return
        self._is_taken = True
        try:
            path = os.path.join(self._state, TAKEN)
            write_atomically(path, self._last.end.encode(), sync=False)
        except OSError as error:
            _log.warning("the link's step cannot be noted: %s", error.strerror)


def _read(path: str) -> Step | None:
    try:
        with open(path, "rb") as file:
            return msgspec.json.decode(file.read(), type=Step)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise IdentityUnreadable(
            f"{path} cannot be used: {error}.",
            hint="Remove it; the node is then quarantined, and released with `fleetwire nodes "
            "release`.",
        ) from error


def _noted(state: str) -> str:
    try:
        with open(os.path.join(state, TAKEN), "rb") as file:
            return file.read(100).decode("ascii", errors="replace")
    except OSError:
        return ""
