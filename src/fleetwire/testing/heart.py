"""The server without its API, in one process: stores, loops and the agents' doors on a real
socket. What FakeNodes dial in tests of the gateway and the loops.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

import uvicorn
from nacl.public import PrivateKey
from nacl.signing import SigningKey
from starlette.applications import Starlette

from fleetwire.core import limits
from fleetwire.core.ids import RANDOM_BYTES, make_id
from fleetwire.core.specs import RunRequest, Scripted, Spec, Step
from fleetwire.server.api.http import BoundedHttp
from fleetwire.server.domain import audit, cluster, enrolment, runs, story, views
from fleetwire.server.domain.audit import Filter, Found
from fleetwire.server.domain.enrolment import Keys
from fleetwire.server.domain.errors import NotFound
from fleetwire.server.domain.runs import Submission, Submitter
from fleetwire.server.domain.secrets import Sealing
from fleetwire.server.domain.submissions import Submissions
from fleetwire.server.domain.views import NodeView, RunView
from fleetwire.server.gateway.endpoint import Gateway
from fleetwire.server.gateway.enrolment import Enrolment
from fleetwire.server.logs import open_logs
from fleetwire.server.logs.base import LogStore
from fleetwire.server.loops.dispatch import DispatchLoop
from fleetwire.server.loops.leases import LeasesLoop
from fleetwire.server.loops.runner import Runner
from fleetwire.server.loops.sealing import SealingLoop
from fleetwire.server.loops.secrets import SecretsLoop
from fleetwire.server.loops.stops import StopsLoop, word
from fleetwire.server.master_key import KEY_FILE, MasterKeys, seal_for_node
from fleetwire.server.nudges.memory import MemoryNudges
from fleetwire.server.signing import Signer
from fleetwire.server.store import Connection
from fleetwire.server.store.engine import Database
from fleetwire.testing.fake_node import Behaviour, FakeNode, Identity

T = TypeVar("T")
USER: Final = "tester"
SUBMITTER: Final = Submitter(USER, USER)


def now_us() -> int:
    """Return wall time, microseconds since 1970."""
    return time.time_ns() // 1000


def new_id() -> str:
    """Return a new id."""
    return make_id(now_us(), secrets.token_bytes(RANDOM_BYTES))


class Clock:
    """Wall time and monotonic time that a test can move forward."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def wall(self) -> int:
        """Microseconds since 1970."""
        return now_us() + round(self.ahead_s * 1_000_000)

    def monotonic(self) -> float:
        """Seconds."""
        return time.monotonic() + self.ahead_s


class Heart:
    """A running server. Made by `heart`."""

    def __init__(
        self,
        database: Database,
        logs: LogStore,
        nudges: MemoryNudges,
        signer: Signer,
        keys: MasterKeys,
        clock: Clock,
        cluster_id: str,
        *,
        hello_within_s: float,
        hellos_at_once: int = limits.HELLOS_AT_ONCE,
    ) -> None:
        self.database = database
        self.logs = logs
        self.nudges = nudges
        self.signer = signer
        self.clock = clock
        self.cluster_id = cluster_id
        self.gateway = Gateway(
            database,
            logs,
            nudges,
            cluster_id=cluster_id,
            key=signer.key_id,
            clock=clock.wall,
            monotonic=clock.monotonic,
            nonce=lambda: secrets.token_hex(16),
            hello_within_s=hello_within_s,
            hellos_at_once=hellos_at_once,
            stops=word(signer, cluster_id, clock.wall()),
        )
        self.enrolment = Enrolment(
            database,
            cluster_id=cluster_id,
            keys=[(signer.key_id, signer.public_key)],
            ids=new_id,
            clock=clock.wall,
        )
        self.submissions = Submissions(database, ids=new_id)
        self.secrets = Sealing(keys.seal, keys.unseal, seal_for_node)
        self.dispatch = DispatchLoop(
            database, signer, cluster_id=cluster_id, clock=clock.wall, sealing=self.secrets
        )
        self.leases = LeasesLoop(database, self.gateway.reading, monotonic=clock.monotonic)
        self.sealing = SealingLoop(database, logs)
        self.forgetting = SecretsLoop(database)
        self.stops = StopsLoop(database, signer, cluster_id=cluster_id)
        self.runner = Runner(
            [self.dispatch, self.leases, self.sealing, self.forgetting, self.stops], nudges
        )
        self.url = ""

    @property
    def http(self) -> str:
        """The address for plain HTTP."""
        return self.url.replace("ws://", "http://")

    async def token(self, **labels: str) -> str:
        """Make an enrolment token."""
        token = secrets.token_urlsafe(32)
        await self.database.write(
            lambda tx: enrolment.create_token(
                tx, token, labels=labels, expires_in=None, by=USER, ids=new_id
            )
        )
        return token

    async def identity(self, name: str, *, capacity: int = 16, **labels: str) -> Identity:
        """Enrol a node."""
        token = await self.token()
        key = SigningKey.generate()
        incarnation = secrets.token_hex(16)
        enrolled = await self.database.write(
            lambda tx: enrolment.enrol(
                tx,
                token,
                name,
                Keys(bytes(key.verify_key), bytes(PrivateKey.generate().public_key)),
                incarnation,
                {"os": "linux", "name": name, **labels},
                "fake",
                capacity,
                None,
                new_id,
            )
        )
        return Identity(enrolled.node, self.cluster_id, key, incarnation)

    def fake(self, identity: Identity, behaviour: Behaviour | None = None) -> FakeNode:
        """Return a fake node that is not connected yet."""
        return FakeNode(
            self.url,
            identity,
            clock=self.clock.wall,
            nonce=lambda: secrets.token_hex(16),
            behaviour=behaviour,
            server_key=self.signer.public_key,
        )

    async def node(
        self, name: str, behaviour: Behaviour | None = None, *, capacity: int = 16, **labels: str
    ) -> FakeNode:
        """Enrol a node and return its fake."""
        return self.fake(await self.identity(name, capacity=capacity, **labels), behaviour)

    async def submit(
        self,
        *steps: Step,
        selector: str | None = None,
        nodes: tuple[str, ...] | None = None,
        spec: Spec | None = None,
        **fields: object,
    ) -> str:
        """Submit a scripted run; return its id."""
        request = RunRequest(
            spec=spec or Scripted(steps or (Step("print", text="hello"),)),
            selector=selector if selector or nodes else "os=linux",
            nodes=nodes,
            **fields,  # type: ignore[arg-type]
        )
        submitted = await self.submissions.submit(
            Submission(request, SUBMITTER, None, self.logs.segment_now())
        )
        return submitted.run_id

    async def stop(self, run_id: str, grace: float | None = None) -> None:
        """Wish a run to stop."""
        await self.database.write(lambda tx: runs.stop(tx, run_id, by=USER, grace=grace))

    async def run(self, run_id: str) -> RunView:
        """Return a run."""
        return await self.database.read(lambda connection: views.get_run(connection, run_id))

    async def node_named(self, name: str) -> NodeView:
        """Return the node of this name."""
        page = await self.database.read(lambda connection: views.list_nodes(connection, limit=500))
        for node in page.items:
            if isinstance(node, NodeView) and node.name == name:
                return node
        raise NotFound(f"There is no node {name!r}.")

    async def story(self, run_id: str) -> list[str]:
        """Return the lines of a run's story."""
        lines = await self.database.read(lambda connection: story.story(connection, run_id))
        return [line.text for line in lines]

    async def audited(self, action: str) -> list[Found]:
        """Return what the audit has of an action in all chains, newest first."""

        def find(connection: Connection) -> list[Found]:
            chains = audit.chains(connection)
            return audit.page(connection, chains, Filter(action), before=None, limit=500)[0]

        return await self.database.read(find)

    async def wait_run(
        self,
        run_id: str,
        predicate: Callable[[RunView], bool] = lambda run: run.sealed,
        timeout: float = 10.0,  # noqa: ASYNC109 - tests read it so
    ) -> RunView:
        """Wait until a run is as wanted, by default ended with all logs settled."""
        return await self.wait(lambda: self.run(run_id), predicate, timeout)

    async def wait(
        self,
        look: Callable[[], Awaitable[T]],
        predicate: Callable[[T], bool],
        timeout: float = 10.0,  # noqa: ASYNC109 - tests read it so
    ) -> T:
        """Look until the predicate holds; the last look is in the error."""
        seen = await look()
        try:
            async with asyncio.timeout(timeout):
                while not predicate(seen):
                    await asyncio.sleep(0.005)
                    seen = await look()
        except TimeoutError:
            raise AssertionError(f"not so within {timeout} s: {seen}") from None
        return seen


HELLO_WITHIN_S: Final = 30.0
"""Many nodes may greet at once on a busy machine; a test of the limit takes a shorter one."""

Serve: TypeAlias = Callable[..., AbstractAsyncContextManager[Heart]]
"""How tests start a server: `heart` on the data of one test, with its options."""


@asynccontextmanager
async def heart(
    directory: Path,
    *,
    database_url: str | None = None,
    logs_at: str | Path | None = None,
    drop_nudges: bool = False,
    clock: Clock | None = None,
    loops: bool = True,
    hello_within_s: float = HELLO_WITHIN_S,
    hellos_at_once: int = limits.HELLOS_AT_ONCE,
) -> AsyncIterator[Heart]:
    """Run a server on a free port until the context is left.

    Where nudges are dropped nothing reacts within a commit either: all is left to the sweeps.
    """
    clock = clock or Clock()
    nudges = MemoryNudges(drop=drop_nudges)
    database = Database.open(
        database_url or f"sqlite:///{directory / 'fleetwire.db'}", nudges=nudges, clock=clock.wall
    )
    logs = open_logs(logs_at or directory / "logs", nudges=nudges, clock=clock.wall)
    try:
        facts = await database.write(lambda tx: cluster.found(tx, new_id))
        one = Heart(
            database, logs, nudges, Signer.open(directory),
            MasterKeys.open(directory / KEY_FILE, None), clock, facts.id,
            hello_within_s=hello_within_s, hellos_at_once=hellos_at_once,
        )  # fmt: skip
        if not drop_nudges:
            reactions = [one.dispatch.react] if loops else []
            database.react(*reactions, one.stops.react, one.gateway.react)
        server = _Uvicorn(
            uvicorn.Config(
                Starlette(routes=[*one.gateway.routes, *one.enrolment.routes]),
                host="127.0.0.1",
                port=0,
                http=BoundedHttp,
                ws="websockets-sansio",
                ws_per_message_deflate=False,
                ws_max_size=2 * 1024 * 1024,
                ws_ping_interval=None,
                lifespan="off",
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=1,
            )
        )
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(one.gateway.run()),
                group.create_task(one.submissions.run()),
            ]
            if loops:
                background.append(group.create_task(one.runner.run()))
            serving = group.create_task(server.serve())
            await server.begun.wait()
            port = server.servers[0].sockets[0].getsockname()[1]
            one.url = f"ws://127.0.0.1:{port}"
            try:
                yield one
            finally:
                for task in background:
                    task.cancel()
                server.should_exit = True
                await serving
    finally:
        await database.close()
        await logs.close()


class _Uvicorn(uvicorn.Server):
    """uvicorn that says when it has begun, and leaves the signals alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.begun = asyncio.Event()

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        await super().startup(sockets)  # type: ignore[arg-type]
        self.begun.set()

    def install_signal_handlers(self) -> None:
        """Leave them to whoever runs the event loop."""
