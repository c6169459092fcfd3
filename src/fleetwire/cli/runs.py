"""`fleetwire runs`: list, show, stop, why."""

from __future__ import annotations

import argparse
import sys

from fleetwire.cli import outcome, timeline
from fleetwire.cli.app import Leaf
from fleetwire.cli.connect import connect
from fleetwire.cli.parsing import Parser, count, duration
from fleetwire.cli.show import (
    coloured,
    facts,
    lasted,
    mark,
    say,
    short,
    size,
    table,
    when,
    write_json,
    write_list,
)
from fleetwire.cli.visible import one_line
from fleetwire.client import Client, Run
from fleetwire.client.shapes import Retry

_STATES = ("pending", "running", "ended")


def _configure_list(parser: Parser) -> None:
    parser.examples.append("fleetwire runs --state running")
    parser.option("--state", choices=_STATES, help="only runs in this state")
    parser.option("--project", metavar="NAME", help="only those of this project")
    parser.option(
        "--limit", metavar="N", type=count, default=20, help="at most N, newest first (default 20)"
    )


def _list(values: argparse.Namespace) -> int:
    with connect() as client:
        page = min(values.limit, 500)
        if values.output != "text":
            query = {"state": values.state, "limit": page, "project": values.project}
            return write_list(client.get_raw("runs", query=query), values.output)
        rows = []
        for run in client.runs(state=values.state, page=page, project=values.project):
            rows.append(
                (
                    short(run.id),
                    run.outcome or ("stopping" if run.wish == "stop" else run.state),
                    when(run.created_at),
                    str(run.counts.get("total", "")),
                    run.selector or ",".join(run.nodes or ()),
                    run.name or what(run),
                )
            )
            if len(rows) >= values.limit:
                break
    if not rows:
        sys.stderr.write("No runs yet. Start one: fleetwire run --on 'os=linux' -- uname -a\n")
        return 0
    table(("RUN", "STATE", "CREATED", "NODES", "ON", "WHAT"), rows)
    return 0


def what(run: Run) -> str:
    """Return the first line of what a run does, and how many there are."""
    import msgspec

    spec = msgspec.json.decode(run.spec)
    if not isinstance(spec, dict):
        return ""
    script = spec.get("script")
    if not isinstance(script, str):
        return str(spec.get("kind", ""))
    lines = [line for line in script.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        return ""
    more = f" ... ({len(lines)} lines)" if len(lines) > 1 else ""
    return one_line(lines[0], 60) + more


def _configure_show(parser: Parser) -> None:
    parser.examples.append("fleetwire runs show 019a0f3c-1b2d")
    parser.examples.append("fleetwire runs show 019a0f3c-1b2d --timeline")
    parser.positional("run", completes="run", help="the run's id, or a unique start of it")
    parser.option(
        "--timeline",
        action="store_true",
        help="what was decided and heard, and what happened to its nodes, in order",
    )


def _show(values: argparse.Namespace) -> int:
    if values.timeline:
        return timeline.show(values)
    with connect() as client:
        body = client.get_raw("runs", values.run)
    if values.output != "text":
        write_json(body)
        return 0
    import msgspec

    run = msgspec.json.decode(body, type=Run)
    show_run(run)
    return 0


def show_run(run: Run) -> None:
    """Print a run and its tasks for people."""
    colour = coloured(sys.stdout)
    state = run.outcome or run.state
    if run.wish == "stop" and run.state != "ended":
        state += " (stop wished)"
    facts(
        (
            ("run", run.id),
            ("name", run.name),
            ("what", what(run)),
            ("on", run.selector or ", ".join(run.nodes or ()) or None),
            ("any", None if run.any is None else str(run.any)),
            ("retry", retry_text(run.retry)),
            ("created", f"{when(run.created_at)} by {run.created_by or '?'}"),
            ("ended", when(run.ended_at) if run.ended_at else None),
        )
    )
    sys.stdout.write(f"state    {mark(one_line(state), colour=colour)}\n\n")
    table(
        ("#", "NODE", "STATE", "EXIT", "TOOK", "LOG", "SHA-256"),
        [
            (
                str(task.index),
                task.node or "-",
                task.outcome or task.state,
                exit_text(task.exit_code, task.signal),
                lasted(task.duration),
                size(task.log.length)
                + ("" if task.log.complete or not task.outcome else f" ({task.log.state})"),
                task.log.sha256 or "-",
            )
            for task in run.tasks or ()
        ],
    )
    for task in run.tasks or ():
        if task.reason:
            sys.stdout.write(f"{outcome.place(task)}: {one_line(task.reason, 1000)}\n")
    late = [
        (task, one)
        for task in run.tasks or ()
        for one in (*task.earlier, task)
        if one.late_exit is not None
    ]
    for task, one in late:
        name = f" (attempt {one.number})" if task.earlier else ""
        sys.stdout.write(f"{outcome.place(one)}{name}: {outcome.late(one)}\n")
    retried = [task for task in run.tasks or () if task.earlier]
    if not retried:
        return
    sys.stdout.write("\nattempts\n")
    table(
        ("#", "TRY", "NODE", "STATE", "EXIT", "STARTED", "TOOK", "LOG", "ATTEMPT"),
        [
            (
                str(task.index),
                str(one.number),
                one.node or "-",
                one.outcome or one.state,
                exit_text(one.exit_code, one.signal),
                when(one.started_at),
                lasted(one.duration),
                size(one.log.length),
                one.attempt,
            )
            for task in retried
            for one in (*task.earlier, task)
        ],
    )


def retry_text(retry: Retry | None) -> str | None:
    """Return what a run's retry policy says, for people."""
    if retry is None:
        return None
    both = [name for name, on in (("failure", retry.on_failure), ("loss", retry.on_lost)) if on]
    times = "once" if retry.count == 1 else f"{retry.count} times"
    return f"{times} after {' or '.join(both)}, the first after {lasted(retry.backoff)}"


def exit_text(exit_code: int | None, signal: int | None) -> str:
    """Return how the first process ended, for a column."""
    if signal is not None:
        return f"signal {signal}"
    return "-" if exit_code is None else str(exit_code)


def _configure_stop(parser: Parser) -> None:
    parser.story = "TERM is sent at once, KILL to what still lives after the grace."
    parser.examples.append("fleetwire runs stop 019a0f3c-1b2d --grace 2s --wait")
    parser.positional("run", completes="run", help="the run's id, or a unique start of it")
    parser.option(
        "--grace", metavar="TIME", type=duration, help="time between TERM and KILL (default 10s)"
    )
    parser.option("--wait", action="store_true", help="wait until nothing of it is alive")


def _stop(values: argparse.Namespace) -> int:
    with connect() as client:
        run = client.stop_run(values.run, grace=values.grace)
        if values.wait:
            run = client.wait(run.id)
        _report_stop(client, run, values)
    return 0


def _report_stop(client: Client, run: Run, values: argparse.Namespace) -> None:
    if values.output != "text":
        write_json(client.get_raw("runs", run.id))
    elif run.state == "ended":
        say(f"Run {short(run.id)} has ended: {run.outcome}.")
    else:
        say(f"Run {short(run.id)} is being stopped. See: fleetwire runs show {short(run.id)}")


def _configure_why(parser: Parser) -> None:
    parser.examples.append("fleetwire runs why 019a0f3c-1b2d")
    parser.positional("run", completes="run", help="the run's id, or a unique start of it")


def _why(values: argparse.Namespace) -> int:
    with connect() as client:
        if values.output != "text":
            write_json(client.get_raw("runs", values.run, "why"))
            return 0
        why = client.why(values.run)
        run = client.run(why.run)
    say(f"Run {run.id}: {(run.outcome or run.state).replace('_', ' ')}.")
    lines_of: dict[int | None, list[str]] = {}
    nodes: dict[int | None, str] = {task.index: outcome.place(task) for task in run.tasks or ()}
    for line in why.lines:
        if line.node:
            nodes[line.task] = one_line(line.node)
        text = one_line(line.text, 2000)
        lines_of.setdefault(line.task, []).append(f"  {when(line.at)}  {text}")
    for index in sorted(lines_of, key=lambda number: -1 if number is None else number):
        if index is not None:
            sys.stdout.write(f"\n{nodes.get(index, f'task {index}')}\n")
        sys.stdout.write("".join(f"{text}\n" for text in lines_of[index]))
    return 0


LEAVES = {
    "runs": Leaf(_configure_list, _list),
    "runs show": Leaf(_configure_show, _show),
    "runs stop": Leaf(_configure_stop, _stop),
    "runs why": Leaf(_configure_why, _why),
}
