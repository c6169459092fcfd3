"""A backup of the simulated server, and its return: the record is then older than the world (P26).

As `fleetwire server backup` does it: the record first, the logs a little later. As `restore` does
it: both are put back, and the record is marked as older than its nodes before a server uses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleetwire.server.domain import restore
from fleetwire.testing.simulation.logs import Durable

if TYPE_CHECKING:
    from fleetwire.testing.simulation.world import World


class Backup:
    """A backup, of its record at first. `is_whole` when it has the logs as well, and can be put
    back.
    """

    def __init__(self, world: World) -> None:
        world.note("a backup is made")
        self._world = world
        self._record = world.shell.copy()
        self._judged = world.judge.remember()
        self._runs = tuple(world.people.runs)
        self._logs = Durable()
        self.is_whole = False

    def take_logs(self) -> None:
        """Copy the logs: the backup is whole."""
        self._logs.become(self._world.durable)
        self.is_whole = True

    def put_back(self) -> None:
        """Kill the server, and let it come back with what it had then."""
        world = self._world
        world.kill_server()
        world.note("the backup is put back")
        world.shell.become(self._record)
        world.durable.become(self._logs)
        world.server_skew_us = 0  # it is refused while the clock is behind
        world.shell.write(restore.begin_doubt, world.server_wall())
        world.judge.go_back(self._judged)
        world.people.go_back(self._runs)
