"""`/runs`: requests to execute, what became of them, and why."""

from __future__ import annotations

import hashlib
import time
from typing import Annotated, cast

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from fleetwire.core import access, limits
from fleetwire.core.access import Reach
from fleetwire.core.specs import RunRequest, canonical
from fleetwire.server.api import cursor, secrets, write
from fleetwire.server.api import views as shapes
from fleetwire.server.api.doors import Door, caller_of, reach_of, reached
from fleetwire.server.api.errors import Unprocessable
from fleetwire.server.api.follow import RunFollower
from fleetwire.server.api.noting import note_of
from fleetwire.server.api.params import (
    EventsQuery,
    ListQuery,
    RunParams,
    RunsQuery,
    StopParams,
)
from fleetwire.server.api.parts import Parts, parts_of
from fleetwire.server.api.streams import EventStream
from fleetwire.server.domain import audit, finding, runs, views
from fleetwire.server.domain import story as stories
from fleetwire.server.domain import timeline as timelines
from fleetwire.server.domain.runs import Submission, Submitter
from fleetwire.server.domain.timeline import Stretch
from fleetwire.server.store import Connection
from fleetwire.server.store.engine import Tx


async def submit(request: Request, body: RunParams) -> Response:
    """Run something on every node that matches a selector, on named nodes, or on any N of them.

    With an `Idempotency-Key` (24 h) a repeated request is answered by the run that it made.
    """
    parts, caller, reach = parts_of(request), caller_of(request), reach_of(request)
    asked = body.request()
    by = Submitter(caller.user, caller.name)
    project = await _project(parts, body.project, reach)
    idempotency = _idempotency(request.headers.getlist("idempotency-key"), asked, project)
    note = note_of(request)
    note.about(chain=project)
    secrets.check_use(caller, asked.spec, project)
    submitted = await parts.submissions.submit(
        Submission(asked, by, idempotency, parts.logs.segment_now(), project, note.by)
    )
    note.nothing()  # `submit` says it, for all that it stores together
    run_id = submitted.run_id
    # What was stored a moment ago need not be read; what was made before has gone on since.
    made = submitted.made
    if made is None:
        made = await parts.database.read(lambda c: views.get_run(c, finding.run(c, run_id, reach)))
    response = write.answer(write.run(made), 201 if submitted.created else 200)
    response.headers["location"] = f"/api/v1/runs/{run_id}"
    return response


async def _project(parts: Parts, word: str | None, reach: Reach) -> str:
    if word is None and len(reach.may) == 1:  # most people have one: nothing to look up
        return next(iter(reach.may))
    return await parts.database.read(lambda c: finding.project_for(c, word, reach))


def _idempotency(keys: list[str], asked: RunRequest, project: str) -> tuple[str, str] | None:
    if not keys:
        return None
    if len(keys) > 1:
        raise Unprocessable(
            "There is more than one Idempotency-Key.", hint="Send one.", field="Idempotency-Key"
        )
    (key,) = keys
    is_fine = key.isascii() and key.isprintable()
    if not is_fine or not 1 <= len(key) <= limits.IDEMPOTENCY_KEY_CHARS:
        raise Unprocessable(
            "The Idempotency-Key cannot be used.",
            hint=f"Send 1 to {limits.IDEMPOTENCY_KEY_CHARS} printable ASCII characters.",
            field="Idempotency-Key",
        )
    told = canonical(asked, None if project == access.DEFAULT_PROJECT else project)
    return key, hashlib.sha256(told).hexdigest()


async def list_(request: Request, query: Annotated[RunsQuery, Query()]) -> Response:
    """List runs, newest first, without their tasks."""
    before = cursor.parse_after(query.cursor)
    reach = reach_of(request)
    found = await parts_of(request).database.read(
        lambda c: views.list_runs(
            c,
            state=query.state,
            cursor=before,
            limit=query.limit,
            within=finding.within(c, query.project, reach),
        )
    )
    last = found.next_cursor
    return write.page(
        [write.run(one, is_cut=True) for one in found.items], cursor.after(last) if last else None
    )


async def show(request: Request, run: str) -> Response:
    """Show a run with its tasks; `run` is its id or a unique beginning of it."""
    reach = reach_of(request)
    found = await parts_of(request).database.read(
        lambda c: views.get_run(c, finding.run(c, run, reach))
    )
    return write.answer(write.run(found))


async def tasks(request: Request, run: str) -> Response:
    """List a run's tasks."""
    reach = reach_of(request)
    found = await parts_of(request).database.read(
        lambda c: views.get_run(c, finding.run(c, run, reach))
    )
    return write.page([write.task(one) for one in found.tasks or ()], None)


async def stop(request: Request, run: str, body: StopParams) -> Response:
    """Wish all tasks of a run to stop: TERM, and KILL after the grace.

    The answer is the wish; each task is stopped when its node says so.
    """
    parts, caller, reach = parts_of(request), caller_of(request), reach_of(request)
    run_id = await parts.database.read(lambda c: finding.run(c, run, reach))
    note = note_of(request)

    def wish_stop(tx: Tx) -> None:
        chain, target = audit.of_run(tx.connection, run_id)
        runs.stop(tx, run_id, by=caller.name, grace=body.grace)
        note.say(tx, chain=chain, target=target, grace=body.grace)

    await parts.database.write(wish_stop)
    found = await parts.database.read(lambda c: views.get_run(c, run_id))
    return write.answer(write.run(found), 202)


async def why(request: Request, run: str) -> Response:
    """Say why a run is as it is: what was decided and heard, newest first per task."""
    database, reach = parts_of(request).database, reach_of(request)
    run_id = await database.read(lambda c: finding.run(c, run, reach))
    lines = await database.read(lambda c: stories.story(c, run_id))
    return write.answer({"run": run_id, "lines": [write.story_line(one) for one in lines]})


async def timeline(request: Request, run: str, query: Annotated[ListQuery, Query()]) -> Response:
    """Tell a run's timeline, oldest first: what was decided and heard of it, and what happened to
    its nodes and to the whole system in that time. It grows at its end while the run goes on.
    """
    after, reach = cursor.parse_number(query.cursor), reach_of(request)

    def find(connection: Connection) -> tuple[str, Stretch]:
        run_id = finding.run(connection, run, reach)
        return run_id, timelines.stretch(connection, run_id, after=after, limit=query.limit)

    run_id, found = await parts_of(request).database.read(find)
    last = found.last
    return write.answer(
        {
            "run": run_id,
            "items": [write.timeline_line(one) for one in found.lines],
            "next_cursor": None if last is None else cursor.after(str(last)),
        }
    )


async def events(request: Request, run: str, query: Annotated[EventsQuery, Query()]) -> Response:
    """Follow a run: `run` and `task` as they change, `log` with logs=1, `end` when all is over.

    Resume with `Last-Event-ID`; some log bytes may then come again, below the offset one has.
    """
    parts, reach, logs = parts_of(request), reach_of(request), query.logs == "1"
    if logs:
        logs_reach = reached(caller_of(request), "read-logs")
        await parts.database.read(lambda c: finding.run(c, run, cast("Reach", logs_reach)))
    found = await parts.database.read(
        lambda c: views.get_run_summary(c, finding.run(c, run, reach))
    )
    follower = RunFollower(
        parts,
        found.id,
        with_logs=logs,
        last_event_id=request.headers.get("last-event-id"),
        clock=time.monotonic,
    )
    return EventStream(request, caller_of(request), follower.write, time.monotonic)


DOORS = [
    Door(
        "POST", "/api/v1/runs", submit, permission="run", action="run.create", tag="runs",
        answers={201: shapes.Run, 200: shapes.Run}, problems=(409,),
        headers={"Idempotency-Key": "The same key and body, within 24 hours, is the same run"},
    ),
    Door(
        "GET", "/api/v1/runs", list_, permission="read", tag="runs",
        answers={200: shapes.Page[shapes.RunInList]},
    ),
    Door(
        "GET", "/api/v1/runs/{run}", show, permission="read", tag="runs",
        answers={200: shapes.Run}, problems=(404, 409),
    ),
    Door(
        "GET", "/api/v1/runs/{run}/tasks", tasks, permission="read", tag="runs",
        answers={200: shapes.Tasks}, problems=(404, 409),
    ),
    Door(
        "POST", "/api/v1/runs/{run}/stop", stop, permission="stop", action="run.stop", tag="runs",
        answers={202: shapes.Run}, problems=(404, 409),
    ),
    Door(
        "GET", "/api/v1/runs/{run}/why", why, permission="read", tag="runs",
        answers={200: shapes.Why}, problems=(404, 409),
    ),
    Door(
        "GET", "/api/v1/runs/{run}/timeline", timeline, permission="read", tag="runs",
        answers={200: shapes.Timeline}, problems=(404, 409),
    ),
    Door(
        "GET", "/api/v1/runs/{run}/events", events, permission="read", tag="runs",
        answers={200: "text/event-stream"}, problems=(404, 409, 429),
        headers={"Last-Event-ID": "The id of the last event that came, to go on after it"},
    ),
]  # fmt: skip
