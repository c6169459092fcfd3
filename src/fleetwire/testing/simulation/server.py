"""A simulated server process: the real gateway, loops and use cases, put together as `server.app`
does it, over the simulated databases.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

from nacl import bindings

from fleetwire.agent.identity import Identity
from fleetwire.agent.keys import KeyPair
from fleetwire.core.ids import make_id
from fleetwire.server.domain import cluster, people
from fleetwire.server.domain.secrets import Sealing
from fleetwire.server.domain.submissions import Submissions
from fleetwire.server.gateway.endpoint import Gateway
from fleetwire.server.loops.dispatch import DispatchLoop
from fleetwire.server.loops.leases import LeasesLoop
from fleetwire.server.loops.proof import ProofLoop
from fleetwire.server.loops.runner import Runner
from fleetwire.server.loops.sealing import SealingLoop
from fleetwire.server.loops.stops import StopsLoop, word
from fleetwire.server.signing import Signer
from fleetwire.server.store import migrations, nodes
from fleetwire.server.store.engine import Tx
from fleetwire.server.store.shell_sqlite import SqliteShell
from fleetwire.testing.simulation.chance import Chance
from fleetwire.testing.simulation.database import (
    Fates,
    SimulatedDatabase,
    SimulatedShell,
    WatchedNudges,
)
from fleetwire.testing.simulation.logs import Durable, MemoryBackend, SimulatedLogs
from fleetwire.testing.simulation.loop import CURRENT, Process, VirtualLoop
from fleetwire.testing.simulation.node import BASE_US

CAPACITY: Final = 3
HEARTBEAT_S: Final = 2.0
LEASE_S: Final = 12.0
"""As much shorter as `installed.OFFLINE_AFTER_S`: more happens in less virtual time."""
_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it


class Founded(NamedTuple):
    """An empty cluster: its database file, its key, its nodes, its admin."""

    path: Path
    cluster: str
    signer: Signer
    nodes: tuple[Identity, ...]
    admin: str


def _key(seed: bytes) -> KeyPair:
    public, _ = bindings.crypto_sign_seed_keypair(seed)
    return KeyPair(seed, public)


@cache
def found(count: int) -> Founded:
    """Make the database of a cluster with so many enrolled nodes, once per process; each world
    copies its file.
    """
    folder = _scratch()
    path = folder / f"founded-{count}.db"
    shell = SqliteShell(str(path))
    signer = Signer(b"s" * 32)
    chance = Chance(f"founded {count}")
    made: list[str] = []

    def ids() -> str:
        made.append(make_id(BASE_US, chance.data(10)))
        return made[-1]

    identities = []
    with shell.migration() as connection:
        migrations.upgrade(connection)
        tx = Tx(connection, BASE_US)
        facts = cluster.found(tx, ids)
        people.create_first_admin(tx, ids=ids, password_hash="-")  # noqa: S106 - nobody logs in
        admin = made[-1]
        for number in range(count):
            pair = _key(bytes([number + 1]) * 32)
            identity = Identity(
                incarnation=f"incarnation-{number}",
                signing_seed=pair.private,
                signing_key=pair.public,
                sealing_secret=b"x" * 32,
                sealing_key=b"y" * 32,
                node=ids(),
                name=f"n{number}",
                cluster=facts.id,
                server_keys={signer.key_id: signer.public_key},
            )
            nodes.insert_node(
                connection,
                {
                    "id": identity.node,
                    "name": identity.name,
                    "signing_key": identity.signing_key,
                    "sealing_key": identity.sealing_key,
                    "labels": '{"os":"linux"}',
                    "capacity": CAPACITY,
                    "incarnation": identity.incarnation,
                    "agent_version": "0",
                    "address": None,
                    "created_at": BASE_US,
                },
            )
            identities.append(identity)
        nodes.catalogue_changed(connection, ids())
    shell.dispose()
    # The write-ahead log goes into the file when its mode changes.
    settled = SimulatedShell(path)
    settled.connect()
    settled.dispose()
    return Founded(path, facts.id, signer, tuple(identities), admin)


@cache
def _scratch() -> Path:
    """Return a folder of this process, deleted when it ends."""
    where = _SHARED_MEMORY if _SHARED_MEMORY.is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="fleetwire-simulation-", dir=where))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def copy(founded: Founded) -> Path:
    """Return a world's own copy of a founded database."""
    path = founded.path.with_name("world.db")
    discard(path)
    shutil.copyfile(founded.path, path)
    return path


def discard(path: Path) -> None:
    """Delete a database with its write-ahead log."""
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)


class SimulatedServer:
    """One server process. Made to serve; `kill` ends it."""

    def __init__(
        self,
        number: int,
        founded: Founded,
        shell: SimulatedShell,
        durable: Durable,
        *,
        loop: VirtualLoop,
        chance: Chance,
        clock: Callable[[], int],
        ids: Callable[[], str],
        fates: Callable[[str], Fates],
        committed: Callable[[], None],
        stored: Callable[[Any, int, bytes], None],
        drop_nudges: bool,
        commit_s: float,
    ) -> None:
        self.process = Process(f"server {number}")
        self.clock = clock
        token = CURRENT.set(self.process)
        try:
            self.nudges = WatchedNudges(drop=drop_nudges)
            self.database = SimulatedDatabase(
                shell,
                loop=loop,
                delay=lambda: chance.delay(commit_s, 0.4),
                fates=fates("record"),
                nudges=self.nudges,
                clock=clock,
                committed=committed,
            )
            self.backend = MemoryBackend(durable, fates("logs"), stored)
            self.logs = SimulatedLogs(
                self.backend,
                loop=loop,
                delay=lambda: chance.delay(commit_s, 0.4),
                nudges=self.nudges,
                clock=clock,
            )
            self.gateway = Gateway(
                self.database,
                self.logs,
                self.nudges,
                cluster_id=founded.cluster,
                key=founded.signer.key_id,
                clock=clock,
                monotonic=loop.time,
                nonce=lambda: chance.data(16).hex(),
                heartbeat_s=HEARTBEAT_S,
                lease_s=LEASE_S,
                stops=word(founded.signer, founded.cluster, clock()),
            )
            stops = StopsLoop(self.database, founded.signer, cluster_id=founded.cluster)
            dispatch = DispatchLoop(
                self.database,
                founded.signer,
                cluster_id=founded.cluster,
                clock=clock,
                sealing=Sealing(_no_secret, _no_secret, _no_secret),
            )
            if not drop_nudges:
                self.database.react(dispatch.react, stops.react, self.gateway.react)
            self.loops = Runner(
                [
                    dispatch,
                    LeasesLoop(
                        self.database,
                        self.gateway.reading,
                        monotonic=loop.time,
                        heartbeat_s=HEARTBEAT_S,
                    ),
                    SealingLoop(self.database, self.logs),
                    stops,
                    ProofLoop(self.database, clock=clock),
                ],
                self.nudges,
                monotonic=loop.time,
            )
            self.submissions = Submissions(self.database, ids=ids)
            for work in (self.gateway.run(), self.loops.run(), self.submissions.run()):
                _ = self.process.spawn(loop, work)
        finally:
            CURRENT.reset(token)

    def kill(self) -> None:
        """Kill the process: what is not committed is gone."""
        self.process.kill()
        self.database.ruin()


def _no_secret(*_: object) -> NoReturn:
    raise AssertionError("no run of the simulation has secrets")
