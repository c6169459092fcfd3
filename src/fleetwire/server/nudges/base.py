"""What every carrier of nudges offers. A nudge is a hint: consumers sweep as well.

Topics: ``dispatch`` (new attempts), ``dispatch:{node}`` (it may take more), ``sealing``,
``node:{id}``, ``run:{id}``, ``log:{attempt}``, ``nodes`` and ``runs``.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Listener(Protocol):
    """One listener's place: collects the topics nudged since it last looked."""

    async def wait(self, timeout: float | None = None) -> set[str]:  # noqa: ASYNC109 - seams 2: a time-out is an answer here
        """Return the topics nudged since the last call; wait for one if there is none.

        The set is empty after `timeout` seconds without a nudge. Cancelling is safe and loses
        nothing: what had been nudged is returned by the next call.
        """
        ...

    def add(self, *topics: str) -> None:
        """Listen to more topics from now on."""
        ...

    def remove(self, *topics: str) -> None:
        """Listen to these no more; a nudge already collected is still returned."""
        ...


class Nudges(Protocol):
    """Sends nudges to listeners, in this process or in others."""

    def send(self, topic: str) -> None:
        """Nudge `topic`. Never blocks, never fails; callable from any thread."""
        ...

    def listen(self, *topics: str) -> AbstractAsyncContextManager[Listener]:
        """Listen to `topics` for as long as the context is entered."""
        ...
