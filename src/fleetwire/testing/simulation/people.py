"""What people do in a world: they submit runs, stop them, drain nodes, and try again when the
server did not answer, with the same idempotency key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from fleetwire.core.dispatch import AdminState
from fleetwire.core.errors import FleetwireError
from fleetwire.core.retry import Retry
from fleetwire.core.specs import RunRequest, Scripted, Step
from fleetwire.server.domain import nodes as node_cases
from fleetwire.server.domain import runs
from fleetwire.server.domain.runs import Submission, Submitter
from fleetwire.testing.simulation.chance import Chance
from fleetwire.testing.simulation.invariants import Acknowledged

if TYPE_CHECKING:
    from fleetwire.testing.simulation.server import SimulatedServer
    from fleetwire.testing.simulation.world import World

T = TypeVar("T")
ANSWER_WITHIN_S: Final = 20.0


class NoAnswer(Exception):
    """The server was killed, or did not answer in time: nobody knows what it did."""


class People:
    """The clients of a world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._chance = world.chance.fork("people")
        self.runs: list[str] = []
        self.waiting = 0
        self._submitted = 0

    async def submit_runs(self, count: int, within_s: float) -> None:
        """Submit so many runs in a while, some of them stopped some time later."""
        self.waiting += 1
        async with asyncio.TaskGroup() as group:
            for number in range(self._submitted, self._submitted + count):
                at = self._chance.between(0.0, within_s) if number else 0.0
                group.create_task(self._submit(number, at))
            self._submitted += count
        self.waiting -= 1

    async def _submit(self, number: int, at: float) -> None:
        await asyncio.sleep(at)
        chance = self._world.chance.fork(f"run {number}")
        wanted = msgspec.structs.replace(
            request(chance, self._world.names, chatty=self._world.plan.chatty), name=f"run-{number}"
        )
        if chance.odds(0.25):
            run = await self._submit_once(wanted)
        else:
            run = await self.submit(wanted, f"key-{number}")
        if run is None:
            return
        if chance.odds(0.35):
            await asyncio.sleep(chance.between(0.0, 5.0))
            grace = chance.pick((None, 0.0, 0.5, 3.0))
            self._world.note(f"stop of run {run[-6:]}, grace {grace}")
            await self.stop(run, grace)

    async def stop(self, run: str, grace: float | None) -> None:
        """Stop a run."""

        async def stop(server: SimulatedServer) -> None:
            if run in self.runs:  # else the record was put back to before it
                await server.database.write(partial(runs.stop, run_id=run, by="admin", grace=grace))

        await self._until_answered(stop)

    def go_back(self, runs: Iterable[str]) -> None:
        """The record is that of a backup again, which had these runs: who runs the cluster makes
        its nodes active, whatever they were then. A run that it does not have is nobody's.
        """
        self.runs = list(runs)
        for node in self._world.nodes:
            self._world.spawn(self._set_admin(node.id, "active"))

    async def drain_and_resume(self, node: str, for_s: float) -> None:
        """Drain a node, and make it active again after a while."""
        self.waiting += 1
        await self._set_admin(node, "draining")
        await asyncio.sleep(for_s)
        await self._set_admin(node, "active")
        self.waiting -= 1

    async def _set_admin(self, node: str, admin: AdminState) -> None:
        self._world.note(f"node {node[-6:]} is made {admin}")
        await self._until_answered(
            lambda server: server.database.write(
                partial(node_cases.set_admin, node=node, admin=admin)
            )
        )

    async def _submit_once(self, wanted: RunRequest) -> str | None:
        """Submit a run without a key: whoever gets no answer does not know, and leaves it."""
        try:
            return await self.ask(self._submission(wanted, None))
        except (NoAnswer, FleetwireError):
            return None

    async def submit(self, wanted: RunRequest, key: str) -> str:
        """Submit a run until the server says that it is stored; return its id."""
        return await self._until_answered(self._submission(wanted, (key, "hash")))

    def _submission(
        self, wanted: RunRequest, idempotency: tuple[str, str] | None
    ) -> Callable[[SimulatedServer], Awaitable[str]]:
        user = Submitter(self._world.founded.admin, "admin")

        async def submit(server: SimulatedServer) -> str:
            done = await server.submissions.submit(
                Submission(wanted, user, idempotency, server.logs.segment_now())
            )
            tasks = (done.made.tasks if done.made is not None else None) or ()
            made = Acknowledged(done.run_id, tuple(task.attempt for task in tasks))
            if done.run_id not in self.runs:
                self.runs.append(done.run_id)
            self._world.judged(lambda: self._world.judge.run_acknowledged(made))
            return done.run_id

        return submit

    async def _until_answered(self, call: Callable[[SimulatedServer], Awaitable[T]]) -> T:
        while True:
            try:
                return await self.ask(call)
            except NoAnswer:
                self._world.note("no answer; asked again")
            except FleetwireError as error:
                self._world.note(f"refused: {error.detail}; asked again")
            await asyncio.sleep(self._chance.between(0.2, 2.0))

    async def ask(self, call: Callable[[SimulatedServer], Awaitable[T]]) -> T:
        """Have the server do something, as a request does. Raises NoAnswer, or what it raises."""
        server = self._world.server
        if server is None:
            await asyncio.sleep(0.2)
            raise NoAnswer
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        async def serve() -> None:
            try:
                result = await call(server)
            except FleetwireError as error:
                if not answer.done():
                    answer.set_exception(error)
                return
            except BaseException:
                if not answer.done():
                    answer.set_exception(NoAnswer())
                raise
            if not answer.done():
                answer.set_result(result)

        _ = server.process.spawn(self._world.loop, serve())
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                return await answer
        except TimeoutError:
            raise NoAnswer from None


def request(chance: Chance, names: tuple[str, ...], *, chatty: bool) -> RunRequest:
    """Return a run of some steps, for some of the nodes; `chatty`: that writes all the time."""
    steps: list[Step] = []
    if chatty:
        steps += [Step("bytes", size=200), Step("sleep", seconds=0.05)] * 30
    if chance.odds(0.2):
        steps.append(Step("ignore"))
    for _ in range(chance.whole(0, 5)):
        if chance.odds(0.5):
            steps.append(Step("bytes", size=chance.pick((1, 30, 500, 3000, 9000, 20_000))))
        else:
            steps.append(Step("sleep", seconds=chance.pick((0.01, 0.2, 1.5, 4.0))))
    if chance.odds(0.3):
        steps.append(Step("exit", code=chance.pick((0, 1, 3))))
    spec = Scripted(
        steps=tuple(steps), timeout=chance.pick((2.0, 10.0, 40.0)), grace=chance.pick((0.0, 1.0))
    )
    queue_timeout = chance.pick((8.0, 300.0, 3600.0))
    if chance.odds(0.2):
        made = RunRequest(spec, selector="os=linux", any=1, queue_timeout=queue_timeout)
    elif chance.odds(0.3):
        made = RunRequest(spec, selector="os=linux", queue_timeout=queue_timeout)
    else:
        made = RunRequest(spec, nodes=(chance.pick(names),), queue_timeout=queue_timeout)
    if not chance.odds(0.3):
        return made
    retry = Retry(
        on_failure=chance.odds(0.7),
        on_lost=True,
        count=chance.whole(1, 3),
        backoff=chance.pick((0.0, 0.5, 3.0)),
    )
    return msgspec.structs.replace(made, retry=retry)
