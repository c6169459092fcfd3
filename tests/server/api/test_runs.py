from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from pydantic import BaseModel

from fleetwire.core import limits
from fleetwire.core.specs import canonical
from fleetwire.server.api import views
from fleetwire.server.api.params import RunParams
from fleetwire.server.api.write import SCRIPT_IN_LISTS, rfc3339
from fleetwire.server.durable.errors import DatabaseUnavailable, StorageFull
from fleetwire.server.durable.reserve import Reserve
from fleetwire.server.store import tables

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.server.api.conftest import Server


@pytest.fixture(scope="module")
def fleet(server: Server) -> Server:
    server.add_node("runs-a", os="linux", runs="yes")
    server.add_node("runs-b", os="linux", runs="yes")
    return server


def holds(shape: type[BaseModel], value: Any) -> None:
    """The documented shape, strictly: no field missing, none too many, no other type."""
    shape.model_validate_json(msgspec.json.encode(value))


def test_submit_show_list_tasks_why_stop(fleet: Server) -> None:
    run = fleet.submit(selector="runs=yes", name="first")
    holds(views.Run, run)
    assert run["state"] == "pending"
    assert run["created_by"] == "admin"
    assert run["selector"] == "runs=yes"
    assert run["counts"]["total"] == 2
    assert [task["node"] for task in run["tasks"]] == ["runs-a", "runs-b"]
    shown = fleet.call("GET", f"/api/v1/runs/{run['id']}")
    assert shown.status == 200
    holds(views.Run, shown.json)
    listed = fleet.call("GET", "/api/v1/runs?limit=500").json
    holds(views.Page[views.RunInList], listed)
    assert run["id"] in [one["id"] for one in listed["items"]]
    tasks = fleet.call("GET", f"/api/v1/runs/{run['id']}/tasks").json
    holds(views.Tasks, tasks)
    assert [one["id"] for one in tasks["items"]] == [one["id"] for one in run["tasks"]]
    why = fleet.call("GET", f"/api/v1/runs/{run['id']}/why").json
    holds(views.Why, why)
    assert why["run"] == run["id"]
    stopped = fleet.call("POST", f"/api/v1/runs/{run['id']}/stop", {"grace": 1.5})
    assert stopped.status == 202
    holds(views.Run, stopped.json)
    assert stopped.json["wish"] == "stop"
    assert stopped.json["outcome"] == "canceled"
    again = fleet.call("POST", f"/api/v1/runs/{run['id']}/stop")
    assert again.status == 202  # a stop is a wish: asked again it is the same wish


def test_location_of_a_new_run(fleet: Server) -> None:
    answer = fleet.call("POST", "/api/v1/runs", {"spec": {"kind": "ping"}, "nodes": ["runs-a"]})
    assert answer.headers["location"] == f"/api/v1/runs/{answer.json['id']}"
    assert fleet.call("GET", answer.headers["location"]).json["id"] == answer.json["id"]


@pytest.mark.parametrize(
    "spec",
    [
        {"kind": "ping"},
        {"kind": "scripted", "steps": [{"do": "print", "text": "x"}, {"do": "exit", "code": 3}]},
        {"kind": "script", "script": "x\n", "shell": "bash", "args": ["a"], "env": {"A": "b"},
         "tty": True, "timeout": 5, "grace": 0},
    ],
)  # fmt: skip
def test_kinds(fleet: Server, spec: dict[str, Any]) -> None:
    run = fleet.submit(spec=spec, nodes=["runs-a"])
    assert spec.items() <= {**run["spec"], "steps": spec.get("steps")}.items()


def test_a_selector_that_matches_nothing_lists_the_labels(fleet: Server) -> None:
    body = {"spec": {"kind": "ping"}, "selector": "os=plan9"}
    answer = fleet.call("POST", "/api/v1/runs", body)
    assert (answer.status, answer.code) == (422, "no-node-matches")
    assert "linux" in answer.json["labels"]["os"]


def test_scripts_are_cut_in_lists(fleet: Server) -> None:
    script = "#" * (SCRIPT_IN_LISTS + 1)
    run = fleet.submit(spec={"kind": "script", "script": script}, nodes=["runs-a"])
    listed = fleet.call("GET", "/api/v1/runs").json["items"][0]
    assert listed["id"] == run["id"]
    assert listed["spec"]["script"] == script[:-1]
    assert fleet.call("GET", f"/api/v1/runs/{run['id']}").json["spec"]["script"] == script


def test_prefixes(fleet: Server) -> None:
    run = fleet.submit(nodes=["runs-a"])
    others = [one["id"] for one in fleet.call("GET", "/api/v1/runs?limit=500").json["items"]]
    others.remove(run["id"])
    unique = next(
        run["id"][:n] for n in range(6, 36) if not any(o.startswith(run["id"][:n]) for o in others)
    )
    assert fleet.call("GET", f"/api/v1/runs/{unique}").json["id"] == run["id"]
    assert fleet.call("GET", f"/api/v1/runs/{run['id'][:5]}").status == 404  # too short
    ambiguous = fleet.call("GET", f"/api/v1/runs/{run['id'][:6]}")
    assert (ambiguous.status, ambiguous.code) == (409, "ambiguous-id")


def test_idempotency(fleet: Server) -> None:
    body = {"spec": {"kind": "ping"}, "nodes": ["runs-a"]}
    key = {"Idempotency-Key": "once"}
    first = fleet.call("POST", "/api/v1/runs", body, headers=key)
    again = fleet.call("POST", "/api/v1/runs", dict(reversed(body.items())), headers=key)
    assert (first.status, again.status) == (201, 200)
    assert first.json["id"] == again.json["id"]
    other = fleet.call("POST", "/api/v1/runs", body | {"name": "x"}, headers=key)
    assert (other.status, other.code) == (409, "idempotency-key-reused")
    assert fleet.call("POST", "/api/v1/runs", body).json["id"] != first.json["id"]


def test_a_key_is_of_one_project(fleet: Server) -> None:
    fleet.add_node("keys-a", project=fleet.new_project("keys"), runs="yes")
    body = {"spec": {"kind": "ping"}, "selector": "runs=yes"}
    key = {"Idempotency-Key": "of default"}
    first = fleet.call("POST", "/api/v1/runs", body, headers=key)
    assert (first.status, first.json["project"]) == (201, "default")
    other = fleet.call("POST", "/api/v1/runs", body | {"project": "keys"}, headers=key)
    assert (other.status, other.code) == (409, "idempotency-key-reused")
    again = fleet.call("POST", "/api/v1/runs", body | {"project": "default"}, headers=key)
    assert (again.status, again.json["id"]) == (200, first.json["id"])
    # a key of the time before there were projects still fits
    mine = tables.runs.select().where(tables.runs.c.id == first.json["id"])
    of_default = fleet.read(lambda c: c.execute(mine).mappings().one())
    asked = canonical(RunParams.model_validate(body).request())
    assert of_default["idempotency_hash"] == hashlib.sha256(asked).hexdigest()


def test_the_same_key_at_once_is_one_run(fleet: Server) -> None:
    body = {"spec": {"kind": "ping"}, "nodes": ["runs-a"]}
    key = {"Idempotency-Key": "at once"}
    with ThreadPoolExecutor(8) as threads:
        answers = list(
            threads.map(lambda _: fleet.call("POST", "/api/v1/runs", body, headers=key), range(16))
        )
    assert sorted(answer.status for answer in answers) == [200] * 15 + [201]
    assert len({answer.json["id"] for answer in answers}) == 1


def test_a_key_is_free_after_a_day(fleet: Server) -> None:
    body = {"spec": {"kind": "ping"}, "nodes": ["runs-a"]}
    key = {"Idempotency-Key": "yesterday"}
    first = fleet.call("POST", "/api/v1/runs", body, headers=key).json["id"]
    runs = tables.runs
    keep_us = limits.IDEMPOTENCY_KEEP_S * 1_000_000
    fleet.write(
        lambda tx: tx.connection.execute(
            runs.update().where(runs.c.id == first).values(created_at=tx.now - keep_us - 1)
        )
    )
    second = fleet.call("POST", "/api/v1/runs", body, headers=key)
    assert second.status == 201
    assert second.json["id"] != first


def test_pages_newest_first(new_server: Callable[..., Server]) -> None:
    server = new_server()
    server.add_node("a")
    made = [server.submit(nodes=["a"])["id"] for _ in range(5)]
    seen: list[str] = []
    cursor = ""
    while True:
        page = server.call("GET", f"/api/v1/runs?limit=2{cursor}").json
        seen += [run["id"] for run in page["items"]]
        if page["next_cursor"] is None:
            break
        server.submit(nodes=["a"])  # what is new meanwhile does not shift the pages
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == made[::-1]
    server.end(made[0])
    ended = server.call("GET", "/api/v1/runs?state=ended").json["items"]
    assert [run["id"] for run in ended] == [made[0]]


def test_nodes(new_server: Callable[..., Server]) -> None:
    server = new_server()
    for name in ("c", "a", "b"):
        server.add_node(name, os="linux")
    first = server.call("GET", "/api/v1/nodes?limit=2").json
    holds(views.Page[views.Node], first)
    rest = server.call("GET", f"/api/v1/nodes?limit=2&cursor={first['next_cursor']}").json
    assert [node["name"] for node in first["items"] + rest["items"]] == ["a", "b", "c"]
    assert rest["next_cursor"] is None
    node = first["items"][0]
    for word in (node["id"], "a"):
        shown = server.call("GET", f"/api/v1/nodes/{word}").json
        holds(views.Node, shown)
        assert shown == node
    ambiguous = server.call("GET", f"/api/v1/nodes/{node['id'][:6]}")
    assert (ambiguous.status, ambiguous.code) == (409, "ambiguous-id")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (StorageFull("The disk is full."), 507, "storage-full"),
        (DatabaseUnavailable("It is locked."), 503, "database-unavailable"),
    ],
)
def test_a_database_that_cannot_write(
    new_server: Callable[..., Server], error: Exception, status: int, code: str
) -> None:
    server = new_server()
    server.add_node("a")

    async def fail(_: object, *, grows: bool = False) -> None:
        del grows
        raise error

    original = server.process.database.write
    server.process.database.write = fail  # type: ignore[method-assign,assignment]
    body = {"spec": {"kind": "ping"}, "nodes": ["a"]}
    answer = server.call("POST", "/api/v1/runs", body)
    assert (answer.status, answer.code) == (status, code)
    assert int(answer.headers["retry-after"]) > 0
    assert server.call("GET", "/api/v1/runs").status == 200  # reading goes on
    server.process._probed_at = -10.0
    ready = server.call("GET", "/readyz", token=None)
    assert ready.status == 503
    assert "database" in ready.json["problems"]
    assert server.call("GET", "/healthz", token=None).json == {"status": "ok"}
    server.process.database.write = original  # type: ignore[method-assign]
    assert server.call("POST", "/api/v1/runs", body).status == 201


def test_an_error_that_nobody_foresaw(
    new_server: Callable[..., Server], capfd: pytest.CaptureFixture[str]
) -> None:
    server = new_server()

    async def fail(_: object) -> None:
        raise RuntimeError("a secret detail")

    original = server.process.database.read
    server.call("GET", "/api/v1/me")  # the token is known from here on
    server.process.database.read = fail  # type: ignore[method-assign,assignment]
    answer = server.call("GET", "/api/v1/runs")
    server.process.database.read = original  # type: ignore[method-assign]
    assert (answer.status, answer.code) == (500, "internal")
    assert b"secret" not in answer.body
    written = capfd.readouterr()
    lines = [line for line in (written.out + written.err).splitlines() if answer.json["id"] in line]
    assert len(lines) == 1
    assert "RuntimeError" in lines[0]
    assert "Traceback" not in written.out + written.err


def test_times() -> None:
    assert rfc3339(0) == "1970-01-01T00:00:00.000000Z"
    assert rfc3339(1_795_219_200_000_001) == "2026-11-21T00:00:00.000001Z"


def test_a_disk_that_is_almost_full(
    tmp_path: Path, new_server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What grows is refused in time, whoever asks; what must be recorded is (P15)."""
    server = new_server()
    server.add_node("a")
    run = server.submit(nodes=["a"])
    if server.process.reserve is None:  # with PostgreSQL the disk is another machine's
        server.process.reserve = server.process.database.reserve = Reserve(tmp_path)
    reserve = server.process.reserve
    facts = os.statvfs(tmp_path)
    full = SimpleNamespace(f_bavail=1, f_frsize=facts.f_frsize, f_blocks=facts.f_blocks)
    monkeypatch.setattr(os, "fstatvfs", lambda _: full)
    reserve.look()
    body = {"spec": {"kind": "ping"}, "nodes": ["a"]}
    answer = server.call("POST", "/api/v1/runs", body)
    assert (answer.status, answer.code) == (507, "storage-full")
    assert "MiB are free" in answer.json["detail"]
    assert "Free some space" in answer.json["hint"]
    assert int(answer.headers["retry-after"]) > 0
    server.process._probed_at = -10.0
    ready = server.call("GET", "/readyz", token=None)
    assert ready.status == 503
    assert "new runs, enrolments and logs need" in ready.json["problems"]["storage"]
    assert server.call("POST", f"/api/v1/runs/{run['id']}/stop").json["outcome"] == "canceled"
    monkeypatch.undo()
    reserve.look()
    assert server.call("POST", "/api/v1/runs", body).status == 201
