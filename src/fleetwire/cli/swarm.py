"""`fleetwire swarm`: thousands of simulated agents, to see what a server can carry."""

from __future__ import annotations

import argparse
import os
import re
import sys
from typing import TYPE_CHECKING, Final

from fleetwire.cli.app import Leaf
from fleetwire.cli.connect import connect
from fleetwire.cli.errors import LocalError
from fleetwire.cli.parsing import Parser, count, duration, pair, shown_word
from fleetwire.cli.visible import visible_text
from fleetwire.core import limits

if TYPE_CHECKING:
    from fleetwire.swarm.app import Shown

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]i?)?B?", re.IGNORECASE | re.ASCII)
_UNITS: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
_PERCENT: Final = re.compile(r"\d+(?:\.\d+)?%?", re.ASCII)
_EVERY_S: Final = 0.25
_EVERY_LINE_S: Final = 10.0
_MOST_OUTPUT: Final = 64 * 2**20


def _configure(parser: Parser) -> None:
    parser.story = (
        "Simulated agents speak the real protocol and run nothing: each task lasts as long,\n"
        "writes as much and fails as often as you say. They enrol as nodes with the label\n"
        "swarm=yes, and a later start with the same --state uses them again. Ctrl-C ends it.\n"
        "Use a server that is there for tests: what its nodes are asked, these are asked too."
    )
    parser.examples += [
        "fleetwire swarm --agents 1000 --latency 50ms --output-size 2KB --fail 1%",
        "fleetwire swarm --agents 5000 --reconnect-storm 60s --label zone=a",
    ]
    parser.option("--agents", metavar="N", type=count, default=100, help="how many (default 100)")
    parser.option(
        "--latency", metavar="TIME", type=duration, default=0.0, help="what each task takes"
    )
    parser.option(
        "--output-size", metavar="SIZE", type=_size, default=0, help="what each task writes"
    )
    parser.option(
        "--frame-size", metavar="SIZE", type=_frame, help="of output in one message (256KiB)"
    )
    parser.option(
        "--fail", metavar="SHARE", type=_share, default=0.0, help="tasks that exit with 1, like 1%"
    )
    parser.option(
        "--heartbeat", metavar="TIME", type=duration, help="default: what the server asks for"
    )
    parser.option(
        "--reconnect-storm", metavar="TIME", type=duration, help="so often all links break at once"
    )
    parser.option(
        "--label",
        metavar="K=V",
        dest="labels",
        type=pair,
        action="append",
        default=[],
        help="a label of new agents; may be repeated",
    )
    parser.option(
        "--capacity", metavar="N", type=count, default=16, help="tasks at once on each (default 16)"
    )
    parser.option(
        "--state", metavar="DIR", completes="folder", help="where its agents are kept (0700)"
    )
    parser.option(
        "--spread", metavar="TIME", type=duration, default=0.0, help="dial over this time at first"
    )
    parser.option("--for", metavar="TIME", dest="lasting", type=duration, help="end after it")


def _call(values: argparse.Namespace) -> int:
    from pathlib import Path

    from fleetwire.cli.show import write_json
    from fleetwire.swarm import app
    from fleetwire.swarm.behaviour import Behaviour
    from fleetwire.swarm.errors import SwarmError

    labels = {"swarm": "yes", "os": "linux", **dict(values.labels)}
    asked = app.Asked(
        state=Path(values.state or default_state()),
        agents=values.agents,
        labels=labels,
        capacity=values.capacity,
        behaviour=Behaviour(
            latency_s=values.latency,
            output_bytes=values.output_size,
            frame_bytes=values.frame_size or Behaviour().frame_bytes,
            fail_share=values.fail,
            heartbeat_s=values.heartbeat or None,
            storm_s=values.reconnect_storm or None,
        ),
        spread_s=values.spread,
        lasting_s=values.lasting,
        every_s=_EVERY_S,
    )
    show = _Lines() if values.output == "jsonl" else _Progress()
    try:
        counts = app.run(asked, connect, show)
    except SwarmError as error:
        raise LocalError(error.detail, hint=error.hint) from error
    show.end()
    if values.output == "json":
        import msgspec

        write_json(msgspec.json.encode(counts))
    return 0


def default_state() -> str:
    """Return where a swarm's agents are kept."""
    base = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(base, "fleetwire-swarm")


class _Progress:
    """A line for people: rewritten in place on a terminal, else one every ten seconds."""

    def __init__(self) -> None:
        self._in_place = sys.stderr.isatty()
        self._next = 0.0
        self._phase = ""

    def __call__(self, shown: Shown) -> None:
        counts = shown.counts
        if shown.phase == "enrolling":
            text = f"{counts.agents} agents enrolled"
        else:
            text = (
                f"{counts.online} of {counts.agents} online, {counts.running} running, "
                f"{counts.ended} ended, {counts.failed} failed, {counts.reconnects} reconnects"
            )
            if counts.online < counts.agents and counts.last:
                text += f"; last: {counts.last}"
        if self._in_place:
            sys.stderr.write(f"\r\x1b[K{visible_text(text)[:119]}")
        elif shown.phase != self._phase or shown.elapsed_s >= self._next:
            self._next = shown.elapsed_s + _EVERY_LINE_S
            sys.stderr.write(f"{shown.elapsed_s:7.1f} s  {visible_text(text)}\n")
        self._phase = shown.phase
        sys.stderr.flush()

    def end(self) -> None:
        """Leave the line as it is."""
        if self._in_place:
            sys.stderr.write("\n")


class _Lines:
    """A line of JSON for each look, for programs."""

    def __call__(self, shown: Shown) -> None:
        import msgspec

        line = {
            "phase": shown.phase,
            "elapsed": round(shown.elapsed_s, 3),
            **msgspec.structs.asdict(shown.counts),
        }
        sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
        sys.stdout.buffer.flush()

    def end(self) -> None:
        """All is said."""


def _size(text: str) -> int:
    found = _SIZE.fullmatch(text)
    size = int(float(found[1]) * _UNITS[(found[2] or "").lower()]) if found else -1
    if not 0 <= size <= _MOST_OUTPUT:
        raise argparse.ArgumentTypeError(
            f"{shown_word(text)} is not a size. Write 500B, 2KB or 1MiB, at most 64MiB."
        )
    return size


def _frame(text: str) -> int:
    size = _size(text)
    if not 1 <= size <= limits.CHUNK_PAYLOAD_BYTES:
        raise argparse.ArgumentTypeError(
            f"{shown_word(text)} is no size of a message. Write 128B or 64KiB, at most 1MiB."
        )
    return size


def _share(text: str) -> float:
    if _PERCENT.fullmatch(text):
        share = float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
        if share <= 1:
            return share
    raise argparse.ArgumentTypeError(
        f"{shown_word(text)} is not a share. Write 1% or 0.01, at most 100%."
    )


LEAVES = {"swarm": Leaf(_configure, _call)}
