"""The timeline of a run: what was decided and heard of it, beside what happened to its nodes and
to the whole system in that time, in the order in which it was recorded (law 9).

Ordered by the record, never by clocks: a wall clock that jumps changes no order (P17).
"""

from __future__ import annotations

from heapq import merge
from itertools import islice
from typing import Final, Literal

import msgspec

from fleetwire.server.domain.errors import NotFound
from fleetwire.server.store import Connection, runs, timeline
from fleetwire.server.store.timeline import Line

LATEST: Final = 2**63 - 1


class TimelineLine(msgspec.Struct, frozen=True):
    """One line. `task` and `number` are of a task and its attempt; `at` is microseconds since
    1970 by the server's clock.
    """

    at: int
    kind: Literal["run", "task", "node", "system"]
    task: int | None
    number: int | None
    node: str | None
    text: str


class Stretch(msgspec.Struct, frozen=True):
    """Some lines, oldest first. `last` is where to go on, None where there is no more now."""

    lines: list[TimelineLine]
    last: int | None


def stretch(connection: Connection, run_id: str, *, after: int | None, limit: int) -> Stretch:
    """Return at most `limit` lines of a run from after the line with that id, or from its
    beginning. Raises NotFound.
    """
    run = runs.by_id(connection, run_id)
    if run is None:
        raise NotFound(f"There is no run {run_id}.", hint="fleetwire runs lists them.")
    lines: list[TimelineLine] = []
    if after is None:
        submitted = f"submitted by {run.created_by}"
        lines.append(TimelineLine(run.created_at, "run", None, None, None, submitted))
    span = timeline.span(connection, run_id)
    if span is None:
        return Stretch(lines, None)
    room = limit - len(lines)
    over = run.state == "ended" and run.unsettled == 0
    start = span.first - 1 if after is None else after
    own = timeline.of_run(connection, run_id, after=start, limit=room + 1)
    others = timeline.around(
        connection, run_id, after=start, last=span.last if over else LATEST, limit=room + 1
    )
    found = list(islice(merge(own, others), room + 1))
    shown = found[:room]
    own_ids = {line.id for line in own}
    lines += [_line(line, of_run=line.id in own_ids) for line in shown]
    more = len(found) > room
    return Stretch(lines, (shown[-1].id if shown else start) if more else None)


def _line(line: Line, *, of_run: bool) -> TimelineLine:
    kind: Literal["run", "task", "node", "system"]
    if of_run:
        kind = "run" if line.position is None else "task"
    else:
        kind = "system" if line.node_id is None else "node"
    return TimelineLine(line.at, kind, line.position, line.number, line.node, line.text)
