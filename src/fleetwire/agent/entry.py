"""One attempt as the agent holds it in memory: its folder as last read, and what is under way."""

from __future__ import annotations

from fleetwire.agent.attempts import Folder, observations
from fleetwire.core.desired import Observation, Wanted
from fleetwire.shim.spool import SpoolReader


class Entry:
    """Mutable, owned by the roster. Everything here can be made again from the folder.

    `asked`: the spawner was asked for a shim and has not answered. `wanted`: the server's last
    word. `reported`: what this link was told, None for nothing. `quota`: the share of the spool
    quota that its shim was told, in bytes. `ended_at`: when its end was seen, seconds of the
    loop's clock. `unlocked`: sweeps in a row that found its lock free. `told_grace`: the grace its
    shim has confirmed with a stop, None for no stop. `telling`: its shim is being told.
    `asked_below`: the server has asked for log bytes below this, where the spool begins.
    """

    __slots__ = (
        "asked",
        "asked_below",
        "attempt",
        "ended_at",
        "folder",
        "path",
        "quota",
        "reader",
        "reported",
        "telling",
        "told_grace",
        "unlocked",
        "wanted",
    )

    def __init__(self, attempt: str, path: str) -> None:
        self.attempt = attempt
        self.path = path
        self.folder = Folder(attempt=attempt)
        self.reader = SpoolReader(path)
        self.wanted: Wanted | None = None
        self.reported: tuple[Observation, ...] | None = None
        self.asked = False
        self.telling = False
        self.told_grace: float | None = None
        self.unlocked = 0
        self.ended_at = 0.0
        self.quota = 0
        self.asked_below = 0

    def observations(self) -> tuple[Observation, ...]:
        """Return all that can be said of it now."""
        return observations(self.folder, asked_below=self.asked_below)

    def has_told_beginning(self, begins: int) -> bool:
        """Say whether this link was told that the spool begins there."""
        return any(told.begins >= begins for told in self.reported or ())
