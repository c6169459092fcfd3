"""The flags of a run that name a user of the node and limits, and what they mean."""

from __future__ import annotations

import argparse
import math

from fleetwire.cli.parsing import Parser, count, duration, size
from fleetwire.core.specs import Resources


def configure(parser: Parser) -> None:
    """Describe the arguments."""
    parser.option(
        "--as", metavar="USER", dest="run_as", default="", help="run it as this user of the node"
    )
    parser.option("--memory", metavar="SIZE", type=size, help="at most 512M, 2G of memory")
    parser.option("--cpus", metavar="N", type=float, help="at most 0.5, 2 processors")
    parser.option(
        "--cpu-time", metavar="TIME", type=duration, help="end a process after so much computing"
    )
    parser.option("--processes", metavar="N", type=count, help="at most N processes at once")
    parser.option("--files", metavar="N", type=count, help="at most N open files of a process")
    parser.option("--file-size", metavar="SIZE", type=size, help="no file larger than this")
    parser.option("--core-size", metavar="SIZE", type=size, help="no core dump larger than this")


def resources_of(values: argparse.Namespace) -> Resources:
    """Return the limits that the flags say."""
    return Resources(
        memory=values.memory,
        cpus=values.cpus,
        cpu_time=None if values.cpu_time is None else math.ceil(values.cpu_time),
        processes=values.processes,
        files=values.files,
        file_size=values.file_size,
        core=values.core_size,
    )
