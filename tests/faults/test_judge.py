"""The judge of the fault lab says so when a promise is broken: each violation is planted here."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest

from fleetwire.testing.faults.judge import Evidence, compare, judge
from fleetwire.testing.faults.tasks import ENDLESS, Book, Task

ATTEMPT = "01a1fce4-39d7-7695-913f-0e9dbea3c838"
TASK = Task(kind="short", lines=5)
LINES = list(TASK.written(ATTEMPT, 0))
OUTPUT = b"".join(LINES)
ENDLESSLY = Task(kind="stopped", lines=ENDLESS, stop_after=1.0)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def stored(raw: bytes) -> dict[str, Any]:
    return {"raw": raw, "streams": (raw, b""), "log_length": len(raw), "log_sha256": sha(raw)}


BOOK = Book(starts=1, ended=True, code=0, sha256=(sha(OUTPUT), sha(b"")), wrote=(len(OUTPUT), 0))
GOOD = Evidence(
    attempt=ATTEMPT, task=TASK, book=BOOK, outcome="succeeded", exit_code=0, **stored(OUTPUT)
)
STOPPED = Evidence(
    attempt=ATTEMPT,
    task=ENDLESSLY,
    book=Book(starts=1, wrote=(len(OUTPUT), 0)),
    outcome="canceled",
    stop_asked=True,
    **stored(OUTPUT),
)
LOST = msgspec.structs.replace(
    GOOD, outcome="lost", state="lost", exit_code=None, shim_killed=True, **stored(OUTPUT[:9])
)


def book(**changes: Any) -> dict[str, Any]:
    return {"book": msgspec.structs.replace(BOOK, **changes)}


@pytest.mark.parametrize("seen", [GOOD, STOPPED, LOST], ids=["good", "stopped", "lost"])
def test_what_keeps_all_promises_is_not_blamed(seen: Evidence) -> None:
    assert judge(seen) == []


@pytest.mark.parametrize(
    ("seen", "changes", "sentence"),
    [
        (GOOD, book(starts=2), "P2 it started 2 times"),
        (GOOD, book(starts=0), "never started"),
        (GOOD, {"runs": 2}, "P1 one submission made 2 runs"),
        (GOOD, {"runs": 0}, "P1 one submission made 0 runs"),
        (GOOD, {"outcome": None, "state": "running"}, "P1 it is stuck"),
        (GOOD, {"outcome": "failed"}, "P4 its outcome is not succeeded"),
        (GOOD, {"exit_code": 1}, "P6 exit code"),
        (GOOD, {"exit_code": None, "signal": 9}, "P6 exit code"),
        (GOOD, {"outcome": "lost", "state": "lost"}, "P6 it is lost although"),
        (GOOD, {"outcome": "lost", "state": "lost"}, "late exit is not shown"),
        (GOOD, {"state": "canceled", "outcome": "canceled"}, "never to have started"),
        (GOOD, {"log_state": "open"}, "P5 its log is not complete"),
        (GOOD, {"log_state": "damaged"}, "P5 its log is damaged"),
        (GOOD, {"log_length": 3}, "its result says 3"),
        (GOOD, {"log_sha256": sha(b"other")}, "SHA-256 of its log"),
        (GOOD, book(sha256=(sha(b"other"), sha(b""))), "not the SHA-256 of what it wrote"),
        (GOOD, stored(OUTPUT + LINES[-1]), "more than it wrote"),
        (GOOD, stored(b"".join([LINES[0], *LINES])), "doubled or reordered"),
        (GOOD, stored(b"".join([LINES[0], LINES[2], LINES[1]])), "bytes are lost"),
        (GOOD, stored(OUTPUT[:-1]), "bytes lost at the end"),
        (GOOD, stored(b"".join(LINES[1:])), "bytes are lost"),
        (GOOD, stored(OUTPUT[:50] + b"?" + OUTPUT[51:]), "wrong bytes"),
        (GOOD, stored(OUTPUT + b"?"), "more than it wrote"),
        (GOOD, {"streams": (OUTPUT, b"?")}, "stderr"),
        (GOOD, {"alive": 1}, "P13 1 processes"),
        (STOPPED, {"alive_when_canceled": 2}, "P13 2 processes lived"),
        (STOPPED, {"outcome": "succeeded"}, "P4 its outcome is not canceled"),
        (STOPPED, stored(OUTPUT[:-9]), "9 bytes lost at the end"),
        (LOST, {"shim_killed": False}, "P6 it is lost although"),
        (LOST, stored(OUTPUT[1:]), "P5"),
        (LOST, book(starts=2), "P2 it started 2 times"),
    ],
)
def test_a_planted_violation_is_found(
    seen: Evidence, changes: dict[str, Any], sentence: str
) -> None:
    found = judge(msgspec.structs.replace(seen, **changes))
    assert any(sentence in said for said in found), found


def test_a_loss_of_power_leaves_an_exact_prefix_that_is_marked() -> None:
    cut = {**stored(OUTPUT[:40]), "log_sha256": sha(OUTPUT), "log_length": len(OUTPUT)}
    marked = msgspec.structs.replace(GOOD, log_state="missing", powerless=True, **cut)
    assert judge(marked) == []
    assert judge(msgspec.structs.replace(marked, log_state="sealed"))
    wrong = msgspec.structs.replace(marked, raw=b"?" * 40, streams=(b"?" * 40, b""))
    assert any("wrong bytes" in said for said in judge(wrong))


def test_compare_takes_any_prefix() -> None:
    assert all(compare(LINES, OUTPUT[:n]) is None for n in range(len(OUTPUT) + 1))


def test_a_book_is_read_as_the_task_writes_it() -> None:
    text = b"start 77\nend 3 aa bb\n"
    wanted = Book(starts=1, ended=True, code=3, sha256=("aa", "bb"), wrote=(120, 7))
    assert Book.parse(text, b"%020d %020d\n" % (120, 7)) == wanted
    assert Book.parse(b"start 1\nstart 2\n", b"") == Book(starts=2)
    assert Book.parse(b"", b"") == Book()
