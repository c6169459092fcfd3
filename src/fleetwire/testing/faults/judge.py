"""The judge: from outside evidence about one attempt to the promises that it shows broken.

Pure: everything it looks at is given. It trusts the books of the tasks and the bytes that the
API gives back, never a log line of Fleetwire's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from fleetwire.testing.faults.tasks import Book, Task

_STREAMS: Final = ("stdout", "stderr")


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of one attempt from outside, once everything had time to settle.

    `runs`: how many runs bear the name under which it was submitted once. `raw`: what
    `runs logs --raw` gives. `streams`: the same bytes, by stream. `alive`: processes with its
    marker now; `alive_when_canceled`: when `canceled` was first read. `shim_killed`: its shim
    was killed while the attempt lived. `powerless`: its spool was cut or damaged as by a loss of
    power, so that its output may be an exact prefix, marked.
    """

    attempt: str
    task: Task
    book: Book
    runs: int = 1
    state: str = "exited"
    outcome: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    reason: str | None = None
    late_exit: bool = False
    log_state: str = "sealed"
    log_length: int | None = None
    log_sha256: str | None = None
    raw: bytes = b""
    streams: tuple[bytes, bytes] = (b"", b"")
    alive: int = 0
    alive_when_canceled: int = 0
    shim_killed: bool = False
    stop_asked: bool = False
    powerless: bool = False


def judge(seen: Evidence) -> list[str]:
    """Return one sentence for each promise broken; [] when all were kept."""
    broken = [*_starts(seen), *_outcome(seen)]
    if seen.outcome is not None:
        broken += [*_output(seen)]
    what = f"{seen.task.kind} {seen.attempt} ({seen.outcome}, {seen.reason})"
    return [f"{sentence}: {what}" for sentence in broken]


def _starts(seen: Evidence) -> Iterator[str]:
    if seen.runs != 1:
        yield f"P1 one submission made {seen.runs} runs"
    if seen.book.starts > 1:
        yield f"P2 it started {seen.book.starts} times"
    if seen.book.starts == 0 and seen.state == "exited" and seen.outcome in {"succeeded", "failed"}:
        # An end by deadline or stop may come before the program's first line.
        yield "P2 it is said to have exited and never started"
    if seen.book.starts and seen.state in {"canceled", "expired", "refused"}:
        yield f"P2 it started and is said never to have started ({seen.state})"
    if seen.alive:
        yield f"P13 {seen.alive} processes of it live on"
    if seen.alive_when_canceled:
        yield f"P13 {seen.alive_when_canceled} processes lived when it was shown canceled"


def _outcome(seen: Evidence) -> Iterator[str]:
    task = seen.task
    if seen.outcome is None:
        yield f"P1 it is stuck: {seen.state}, log {seen.log_state}"
        return
    if seen.outcome == "lost":
        if not seen.shim_killed:
            yield "P6 it is lost although its shim was not killed"
        if seen.book.ended and not seen.late_exit and not seen.shim_killed:
            yield "P4 it ended, and its late exit is not shown"
        return
    wanted = {"succeeded"} if task.code == 0 and not task.number else {"failed"}
    if task.endless:
        wanted = {"canceled"} if task.stop_after is not None else {"timed_out"}
    elif seen.stop_asked and not seen.book.ended:
        wanted = {"canceled"}
    if seen.outcome not in wanted:
        yield f"P4 its outcome is not {' or '.join(sorted(wanted))}"
    if task.endless or seen.outcome == "canceled":
        return
    said = (seen.exit_code, seen.signal)
    really = (None, task.number) if task.number else (task.code, None)
    if said != really:
        yield f"P6 exit code and signal are {said}, not {really}"
    if not seen.book.ended:
        yield "P4 it is said to have ended by itself, and has not"


def _output(seen: Evidence) -> Iterator[str]:
    if len(seen.raw) != sum(map(len, seen.streams)):
        yield f"P5 raw has {len(seen.raw)} bytes, the streams {[*map(len, seen.streams)]}"
    if seen.log_state == "open":
        yield "P5 its log is not complete"
    elif seen.log_state != "sealed" and not seen.powerless:
        yield f"P5 its log is {seen.log_state}"
    sealed = seen.log_state == "sealed"
    if sealed and seen.log_length is not None and seen.log_length != len(seen.raw):
        yield f"P5 its log has {len(seen.raw)} bytes, its result says {seen.log_length}"
    if sealed and seen.log_sha256 and _sha256(seen.raw) != seen.log_sha256:
        yield "P5 the SHA-256 of its log is not that of its result"
    # What a killed shim had not read yet is gone with its pipes (P7).
    may_lack = seen.shim_killed or (seen.powerless and not sealed) or seen.outcome == "lost"
    for stream, stored in enumerate(seen.streams):
        sentence = compare(seen.task.written(seen.attempt, stream), stored)
        if sentence:
            yield f"P5 {_STREAMS[stream]}: {sentence}"
            continue
        if not may_lack and len(stored) < seen.book.wrote[stream]:
            lost = seen.book.wrote[stream] - len(stored)
            yield f"P5 {_STREAMS[stream]}: {lost} bytes lost at the end"
        if seen.book.ended and not may_lack and _sha256(stored) != seen.book.sha256[stream]:
            yield f"P5 {_STREAMS[stream]}: not the SHA-256 of what it wrote"


def compare(written: Iterable[bytes], stored: bytes) -> str | None:
    """Say how stored bytes are no prefix of what was written (lost, doubled, reordered, wrong),
    or None.
    """
    at = 0
    lines = iter(written)
    before: set[bytes] = set()
    for line in lines:
        if at >= len(stored):
            return None
        there = stored[at : at + len(line)]
        if there != line[: len(there)]:
            found = stored[at:].split(b"\n", 1)[0] + b"\n"
            if found in before:
                return f"a line is doubled or reordered at byte {at}: {found[:80]!r}"
            if found in lines:
                return f"bytes are lost at byte {at}: there is {found[:80]!r}"
            return f"wrong bytes at byte {at}: {found[:80]!r}, not {line[:80]!r}"
        before.add(line)
        at += len(line)
    rest = len(stored) - at
    return f"{rest} bytes more than it wrote" if rest > 0 else None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
