"""The load: somebody who submits tasks, stops some, and waits, whatever fails meanwhile.

It runs on a thread of its own and talks to the server as users do, through the client. Each
submission has a name of its own, so that one which was made twice shows.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from fleetwire.client import Client, ClientError, Run, ServerFault, ServerUnreachable
from fleetwire.client import Task as ApiTask
from fleetwire.testing.faults.judge import Evidence, judge
from fleetwire.testing.faults.system import System
from fleetwire.testing.faults.tasks import ENDLESS, Kind, Task
from fleetwire.testing.simulation.chance import Chance

_PAUSE_S: Final = 0.05
_LOOK_S: Final = 0.3
SETTLE_S: Final = 120.0


class Flight:
    """One submitted task, from the submission to its judgement."""

    def __init__(self, name: str, task: Task, node: str) -> None:
        self.name = name
        self.task = task
        self.node = node
        self.run = ""
        self.attempt = ""
        self.submitted = 0.0
        self.stop_asked = False
        self.alive_when_canceled = 0
        self.ended = False

    @property
    def stop_due(self) -> bool:
        """Whether it is time to stop it."""
        after = self.task.stop_after
        since = time.monotonic() - self.submitted
        return after is not None and not self.stop_asked and since >= after


class Load:
    """Keeps `most` tasks on their way until `close` or until all of `tasks` were submitted,
    if some are given, then waits for the last. `close` joins the thread, and raises what it met.

    Errors of kind ServerFault and ServerUnreachable are counted in `refused` and tried again.
    """

    def __init__(
        self,
        system: System,
        chance: Chance,
        name: str,
        *,
        most: int = 8,
        kinds: tuple[Kind, ...] = (),
        tasks: Sequence[Task] = (),
    ) -> None:
        self.flights: list[Flight] = []
        self.refused: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.most = most
        self._system = system
        self._chance = chance
        self._name = name
        self._kinds = kinds
        self._tasks = tasks
        self._total = len(tasks) or ENDLESS
        self._closing = threading.Event()
        self._give_up = math.inf
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="load")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def hold(self) -> None:
        """Submit no more."""
        self._closing.set()

    def close(self, within: float = SETTLE_S) -> None:
        """Submit no more, and wait until all has ended or the time is over (then it is stuck)."""
        self._give_up = time.monotonic() + within
        self._closing.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    @property
    def done(self) -> bool:
        """Whether all that it had to submit has ended."""
        return len(self.flights) >= self._total and all(one.ended for one in self.flights)

    def wait_done(self, within: float = SETTLE_S) -> None:
        """Wait for that, or for the time to be over: then the judge finds what is stuck."""
        give_up = time.monotonic() + within
        while not self.done and time.monotonic() < give_up and self._thread.is_alive():
            time.sleep(_PAUSE_S)

    def judge(self, *, powerless: Collection[str] = (), shims_may_die: bool = False) -> list[str]:
        """Return what of all that was submitted broke a promise. `powerless`: attempts whose
        spool was cut; `shims_may_die`: it is not known whose shim was killed.
        """
        with self._client() as client:
            named: Counter[str] = Counter()
            oldest = min((flight.run for flight in self.flights), default="")
            for run in client.runs(page=200):
                named[run.name or ""] += 1
                # Newest first, and ids are ordered by time: what was made twice stands near.
                if run.id < oldest and not (run.name or "").startswith(f"{self._name}/"):
                    break
            alive = self._system.alive({flight.attempt for flight in self.flights})
            broken = []
            for flight in self.flights:
                ill = flight.attempt in powerless
                seen = self._evidence(client, flight, named, alive, ill)
                if shims_may_die or ill:
                    seen = msgspec.structs.replace(seen, shim_killed=True)
                self.outcomes[seen.outcome or "stuck"] += 1
                self.outcomes["bytes"] += len(seen.raw)
                broken += judge(seen)
            return broken

    # ------------------------------------------------------------------------- on its thread

    def _run(self) -> None:
        try:
            with self._client() as client:
                looked = 0.0
                while not (self._closing.is_set() and self._settled()):
                    try:
                        self._step(client)
                        if time.monotonic() - looked >= _LOOK_S:
                            looked = time.monotonic()
                            self._look(client)
                    except (ServerFault, ServerUnreachable) as error:
                        self.refused[error.code] += 1
                    self._wait_a_little()
        except (ClientError, OSError, ValueError, AssertionError) as failure:
            self._failure = failure

    def _settled(self) -> bool:
        over = time.monotonic() > self._give_up
        return over or all(flight.ended for flight in self.flights)

    def _wait_a_little(self) -> None:
        time.sleep(_PAUSE_S)

    def _step(self, client: Client) -> None:
        for flight in self.flights:
            if not flight.ended and flight.stop_due:
                client.stop_run(flight.run, grace=flight.task.grace)
                flight.stop_asked = True
        flying = sum(not flight.ended for flight in self.flights)
        open_still = not self._closing.is_set() and len(self.flights) < self._total
        if open_still and flying < self.most:
            self._submit(client)

    def _submit(self, client: Client) -> None:
        number = len(self.flights)
        if self._tasks:
            task = self._tasks[number]
        else:
            task = Task.of(self._chance, self._chance.pick(self._kinds) if self._kinds else None)
        flight = Flight(f"{self._name}/{number}", task, self._chance.pick(self._system.names))
        request = flight.task.request(str(self._system.books), flight.node, flight.name)
        # The name is the key: a submission that is tried again after an error is the same one.
        run = client.create_run(request, idempotency_key=flight.name)
        flight.run, flight.attempt = run.id, one_task(run).attempt
        flight.submitted = time.monotonic()
        self.flights.append(flight)

    def _look(self, client: Client) -> None:
        flying = {flight.run: flight for flight in self.flights if not flight.ended}
        for run_id, flight in flying.items():
            if flight.stop_asked:
                self._take(flight, client.run(run_id))
        oldest = min(flying, default="")
        for run in client.runs(page=200):
            if run.id < oldest:  # newest first, and ids are ordered by time
                break
            if run.id in flying:
                # The list has no tasks, and a run is over for us when its log is settled as well.
                ended = run.state == "ended"
                self._take(flying[run.id], client.run(run.id) if ended else run)

    def _take(self, flight: Flight, run: Run) -> None:
        task = run.tasks[0] if run.tasks else None
        if task is not None and task.outcome == "canceled" and not flight.ended:
            flight.alive_when_canceled = max(
                flight.alive_when_canceled, self._system.alive({flight.attempt}).total()
            )
        if run.state == "ended" and task is not None and task.log.state != "open":
            flight.ended = True

    # ------------------------------------------------------------------------------ judging

    def _client(self) -> Client:
        lab = self._system.lab
        return Client(lab.url, lab.env["FLEETWIRE_TOKEN"], patience=60.0)

    def _evidence(
        self,
        client: Client,
        flight: Flight,
        named: Counter[str],
        alive: Counter[str],
        powerless: bool,
    ) -> Evidence:
        task = one_task(client.run(flight.run))
        raw = b"".join(client.raw_log(flight.attempt))
        streams = (raw, b"")
        if flight.task.both:
            streams = _streams(client, flight.attempt)
        return Evidence(
            attempt=flight.attempt,
            task=flight.task,
            book=self._system.book(flight.attempt),
            runs=named[flight.name],
            state=task.state,
            outcome=task.outcome,
            exit_code=task.exit_code,
            signal=task.signal,
            reason=task.reason,
            late_exit=task.late_exit is not None,
            log_state=task.log.state,
            log_length=task.log.length,
            log_sha256=task.log.sha256,
            raw=raw,
            streams=streams,
            alive=alive[flight.attempt],
            alive_when_canceled=flight.alive_when_canceled,
            shim_killed=flight.attempt in self._system.shims_killed,
            stop_asked=flight.stop_asked,
            powerless=powerless,
        )


def one_task(run: Run) -> ApiTask:
    """Return the only task of a run."""
    if run.tasks is None or len(run.tasks) != 1:
        raise AssertionError(f"run {run.id} has not one task: {run.tasks}")
    return run.tasks[0]


def _streams(client: Client, attempt: str) -> tuple[bytes, bytes]:
    parts: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
    offset = 0
    while True:
        page = client.log(attempt, offset=offset)
        for part in page.parts:
            parts.setdefault(part.stream, []).append(part.data)
        if page.next_offset <= offset:
            return b"".join(parts["stdout"]), b"".join(parts["stderr"])
        offset = page.next_offset
