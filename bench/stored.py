"""A server with a million runs behind it: how long a restart after kill -9 takes, and what lists
and single runs cost then.

The runs are copies, in SQL, of one that was really run: their rows are as the server wrote them.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing

from bench.figures import Figure, percentile
from fleetwire.client import Client
from fleetwire.core.ids import make_id
from fleetwire.testing.lab import Lab, wait_until

GROUP = "stored"
RUNS = 1_000_000
AT_ONCE = 50_000
APART_US = 60_000_000
ASKED = 20
RESTARTS = 3


def measure(lab: Lab) -> Iterator[Figure]:
    """Yield the figures of a server with 1,000,000 runs."""
    lab.start_agent()
    run = lab.submit("echo hello\n")
    lab.client.wait(run.id)
    assert lab.server is not None
    lab.server.stop()
    with closing(sqlite3.connect(lab.data / "fleetwire.db", isolation_level=None)) as record:
        ids = _multiply(record, run.id)
    size = (lab.data / "fleetwire.db").stat().st_size / 2**20
    lab.start_server()
    lab.wait_online("node-1")
    times = sorted(_restart(lab) for _ in range(RESTARTS))
    yield Figure(
        group=GROUP, what=f"kill -9 with {RUNS:,} runs stored, until it serves again", unit="s",
        better="lower", value=times[len(times) // 2], must=10, aim=2,
        note=f"{size:.0f} MiB of record; {RESTARTS} times, {times[0]:.2f} to {times[-1]:.2f} s",
    )  # fmt: skip
    lab.wait_online("node-1")
    some = ids[:: max(1, len(ids) // ASKED)][:ASKED]
    with lab.client as client:
        _noop(lab, client)  # the node has come back to the server that was started last
        asked: dict[str, Callable[[str], object]] = {
            "first page of runs": lambda _: client.get_raw("runs", query={"limit": 50}),
            "first page of running runs": lambda _: client.get_raw(
                "runs", query={"limit": 50, "state": "running"}
            ),
            "one run, by a short id": lambda id_: client.get_raw("runs", id_[:30]),
            "why of one run": lambda id_: client.get_raw("runs", id_, "why"),
            "nodes": lambda _: client.get_raw("nodes"),
            "a no-op, submit to result": lambda _: _noop(lab, client),
        }
        for what, ask in asked.items():
            took = [_timed(ask, id_) * 1000 for id_ in some]
            yield Figure(
                group=GROUP, what=f"{what}, with {RUNS:,} runs stored, p50", unit="ms",
                better="lower", value=percentile(took, 0.5),
                note=f"p95 {percentile(took, 0.95):.1f}",
            )  # fmt: skip


def _multiply(record: sqlite3.Connection, model: str) -> list[str]:
    """Copy the run until there are a million; return some of their ids."""
    record.execute("PRAGMA synchronous = OFF")
    (newest,) = record.execute("SELECT created_at FROM runs WHERE id = ?", (model,)).fetchone()
    some: list[str] = []
    for begin in range(0, RUNS, AT_ONCE):
        rows = []
        for number in range(begin, min(begin + AT_ONCE, RUNS)):
            at = newest - (number + 1) * APART_US // 1000
            rows.append([_id(at, number, kind) for kind in range(3)] + [at])
        some.append(rows[0][0])
        record.execute("BEGIN")
        record.execute("CREATE TEMP TABLE new (run TEXT, task TEXT, attempt TEXT, at INTEGER)")
        record.executemany("INSERT INTO new VALUES (?, ?, ?, ?)", rows)
        _copy(record, "runs", model, {"id": "new.run", "created_at": "new.at",
              "ended_at": "new.at + 1000000", "idempotency_key": "NULL"}, "id")  # fmt: skip
        _copy(record, "tasks", model, {"id": "new.task", "run_id": "new.run",
              "attempt_id": "new.attempt"}, "run_id")  # fmt: skip
        _copy(record, "attempts", model, {"id": "new.attempt", "task_id": "new.task",
              "run_id": "new.run", "ended_at": "new.at + 1000000"}, "run_id")  # fmt: skip
        _copy(record, "decisions", model, {"id": "NULL", "at": "new.at", "run_id": "new.run",
              "attempt_id": "new.attempt"}, "run_id")  # fmt: skip
        record.execute("DROP TABLE new")
        record.execute("COMMIT")
    record.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return some


def _copy(
    record: sqlite3.Connection, table: str, model: str, changed: dict[str, str], key: str
) -> None:
    columns = [row[1] for row in record.execute(f"PRAGMA table_info({table})")]
    values = ", ".join(changed.get(name, f"one.{name}") for name in columns)
    record.execute(
        f"INSERT INTO {table} SELECT {values} FROM new, {table} one WHERE one.{key} = ?",  # noqa: S608 - names of our own
        (model,),
    )


def _id(at: int, number: int, kind: int) -> str:
    return make_id(at, kind.to_bytes(2, "big") + number.to_bytes(8, "big"))


def _restart(lab: Lab) -> float:
    """Kill the server and start it again; return the seconds until it takes a request."""
    assert lab.server is not None
    lab.server.kill()
    began = time.perf_counter()
    lab.start_server()
    wait_until(lambda: lab.client.get_raw("runs", query={"limit": 1}), "an answer")
    return time.perf_counter() - began


def _noop(lab: Lab, client: Client) -> None:
    client.wait(lab.submit("true\n").id)


def _timed(ask: Callable[[str], object], id_: str) -> float:
    began = time.perf_counter()
    ask(id_)
    return time.perf_counter() - began
