"""Submissions of many callers, stored together.

While one transaction is under way, whoever submits meanwhile shares the next one: a lone caller
waits for nobody, and under load a run costs a third of what it costs alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from fleetwire.core.errors import FleetwireError
from fleetwire.server.domain import runs
from fleetwire.server.domain.runs import Submission, Submitted
from fleetwire.server.store.engine import Database

AT_ONCE: Final = 128


class _Caller(NamedTuple):
    submission: Submission
    answer: asyncio.Future[Submitted]


class Submissions:
    """Takes submissions while `run` runs, in one event loop."""

    def __init__(self, database: Database, *, ids: Callable[[], str]) -> None:
        self._database = database
        self._ids = ids
        self._queue: list[_Caller] = []
        self._some = asyncio.Event()

    async def submit(self, submission: Submission) -> Submitted:
        """Store a run; return after COMMIT. Raises what `runs.submit` and `Database.write` raise.

        Cancelling is safe: the run may be stored all the same, only its answer is lost.
        """
        answer: asyncio.Future[Submitted] = asyncio.get_running_loop().create_future()
        self._queue.append(_Caller(submission, answer))
        self._some.set()
        return await answer

    async def run(self) -> None:
        """Store submissions until cancelled; a failed database is told to each caller."""
        while True:
            await self._some.wait()
            batch = self._queue[:AT_ONCE]
            del self._queue[:AT_ONCE]
            if not self._queue:
                self._some.clear()
            await self._store([one for one in batch if not one.answer.cancelled()])

    async def _store(self, batch: list[_Caller]) -> None:
        submissions = [one.submission for one in batch]
        try:
            answers = await self._database.write(
                partial(runs.submit_all, submissions=submissions, ids=self._ids), grows=True
            )
        except asyncio.CancelledError:
            for one in batch:
                one.answer.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - it is raised to the callers it belongs to
            if len(batch) > 1 and not isinstance(error, FleetwireError):
                for one in batch:  # one of them must not fail the others
                    await self._store([one])
                return
            for one in batch:
                _refuse(one, error)
            return
        for one, answer in zip(batch, answers, strict=True):
            if isinstance(answer, FleetwireError):
                _refuse(one, answer)
            elif not one.answer.done():
                one.answer.set_result(answer)


def _refuse(one: _Caller, error: Exception) -> None:
    if not one.answer.done():
        one.answer.set_exception(error)
