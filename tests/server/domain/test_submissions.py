"""Many callers share a transaction, and nothing else."""

from __future__ import annotations

import asyncio

from fleetwire.core.errors import BadSpec, NoNodeMatches
from fleetwire.core.specs import RunRequest, Script
from fleetwire.server.domain.errors import IdempotencyConflict
from fleetwire.server.domain.runs import Submission, Submitted
from fleetwire.testing.heart import SUBMITTER, Heart, Serve


def submission(key: tuple[str, str] | None = None, **fields: object) -> Submission:
    asked = {"spec": Script("true"), "selector": "os=linux", **fields}
    return Submission(RunRequest(**asked), SUBMITTER, key, "2026-11-20")  # type: ignore[arg-type]


async def all_of(one: Heart, asked: list[Submission]) -> list[Submitted | Exception]:
    async def submit(each: Submission) -> Submitted | Exception:
        try:
            return await one.submissions.submit(each)
        except Exception as error:  # noqa: BLE001 - what was raised is what is looked at
            return error

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(submit(each)) for each in asked]
    return [task.result() for task in tasks]


async def test_each_is_refused_or_stored_by_itself(serve: Serve) -> None:
    async with serve(loops=False) as one:
        await one.identity("a")
        asked = [submission(name=f"run {n}") for n in range(100)]
        asked[10] = submission(selector="role=nobody")
        asked[20] = submission(spec=Script(""))
        asked[30] = submission(("key", "body"))
        asked[40] = submission(("key", "body"))
        asked[50] = submission(("key", "another body"))
        before = one.database.statistics().use_cases
        answers = await all_of(one, asked)
        assert one.database.statistics().use_cases - before <= 3
        assert isinstance(answers[10], NoNodeMatches)
        assert isinstance(answers[20], BadSpec)
        assert isinstance(answers[30], Submitted)
        assert answers[40] == Submitted(answers[30].run_id, None)
        assert isinstance(answers[50], IdempotencyConflict)
        stored = [answer for answer in answers if isinstance(answer, Submitted)]
        assert len({answer.run_id for answer in stored}) == 97 - 1
        for answer in stored[:5]:
            assert (await one.run(answer.run_id)).counts["pending"] == 1


async def test_a_submission_that_breaks_the_statement_fails_alone(serve: Serve) -> None:
    async with serve(loops=False) as one:
        await one.identity("a")
        broken = submission()._replace(segment=None)  # type: ignore[arg-type]
        answers = await all_of(one, [submission(), broken, submission()])
        assert isinstance(answers[0], Submitted)
        assert isinstance(answers[1], Exception)
        assert isinstance(answers[2], Submitted)
