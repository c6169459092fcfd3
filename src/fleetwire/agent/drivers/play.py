"""Plays the steps of a scripted attempt: `python -I -S play.py STEPS.json`.

A program of its own, standard library only. What each step means stands in core.specs.Step.
"""

import json
import os
import signal
import sys
import time
from typing import Any

BLOCK = 64 * 1024


def play(steps: list[dict[str, Any]]) -> int:
    """Play the steps in order; return the exit code."""
    for step in steps:
        what = step["do"]
        if what == "print":
            print_lines(step)
        elif what == "bytes":
            write_numbered(step.get("stream", 1), step.get("size", 0))
        elif what == "sleep":
            time.sleep(step.get("seconds", 0.0))
        elif what == "ignore":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        elif what == "escape":
            escape(step.get("seconds", 0.0))
        elif what == "ledger":
            enter(step.get("text", ""))
        elif what == "signal":
            signal.signal(step["code"], signal.SIG_DFL)
            os.kill(os.getpid(), step["code"])
        elif what == "exit":
            return int(step.get("code", 0))
    return 0


def print_lines(step: dict[str, Any]) -> None:
    """Write a line `count` times, with a pause between."""
    line = step.get("text", "").encode() + b"\n"
    count, pause = step.get("count", 1), step.get("seconds", 0.0)
    if not pause:
        write(step.get("stream", 1), line * count)
        return
    for number in range(count):
        if number:
            time.sleep(pause)
        write(step.get("stream", 1), line)


def write_numbered(stream: int, size: int) -> None:
    """Write `size` bytes: the eight digits of each 8-byte word's number, so that any loss or
    doubling shows where it is.
    """
    number = 0
    while size > 0:
        block = b"".join(b"%08d" % (word % 10**8) for word in range(number, number + BLOCK // 8))
        number += BLOCK // 8
        write(stream, block[:size])
        size -= BLOCK


def escape(seconds: float) -> None:
    """Leave a child that has a session of its own, no parent, and ignores SIGTERM."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(seconds)
    os._exit(0)


def enter(path: str) -> None:
    """Append one line to a ledger, in one write, so that starts can be counted from outside."""
    line = f"{os.environ.get('FLEETWIRE_ATTEMPT', '-')} {os.getpid()}\n".encode()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(fd, line)
        os.fsync(fd)
    finally:
        os.close(fd)


def write(stream: int, data: bytes) -> None:
    """Write all of it, unbuffered."""
    view = memoryview(data)
    while view:
        view = view[os.write(stream, view) :]


if __name__ == "__main__":
    with open(sys.argv[1], "rb") as file:
        STEPS = json.load(file)
    sys.exit(play(STEPS))
