"""`fleetwire runs show --timeline`: a run beside its nodes and the system, in order."""

from __future__ import annotations

import argparse
import sys

from fleetwire.cli.connect import connect
from fleetwire.cli.show import write_json
from fleetwire.cli.visible import one_line
from fleetwire.client import TimelineLine


def show(values: argparse.Namespace) -> int:
    """Print the timeline of `values.run`: a line each, or the first page as JSON."""
    with connect() as client:
        if values.output == "json":
            write_json(client.get_raw("runs", values.run, "timeline", query={"limit": 500}))
            return 0
        for line in client.timeline(values.run, page=500):
            if values.output == "jsonl":
                import msgspec

                write_json(msgspec.json.encode(line))
            else:
                sys.stdout.write(text(line) + "\n")
    return 0


def text(line: TimelineLine) -> str:
    """Return one line for people: when, where, what."""
    where = one_line(line.node) if line.node else line.kind
    if line.task is not None:
        number = f".{line.attempt}" if line.attempt is not None and line.attempt > 1 else ""
        where += f" #{line.task}{number}"
    at = line.at[:23].replace("T", " ") + "Z"
    return f"{at}  {where:<20}  {one_line(line.text, 2000)}"
