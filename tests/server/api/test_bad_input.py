"""Bad input: a clear problem document each, never a traceback, never a hang, nothing stored."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from fleetwire.core import limits
from fleetwire.server.store import tables

if TYPE_CHECKING:
    from tests.server.api.conftest import Server

SPEC: dict[str, Any] = {"kind": "script", "script": "true\n"}
ID = "0190b7f0-1c2d-7abc-8def-0123456789ab"


@pytest.fixture(autouse=True)
def no_traceback(
    server: Server, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Any:
    def runs() -> int:
        return len(server.read(lambda c: c.execute(tables.runs.select()).all()))

    before = runs()
    yield
    written = capfd.readouterr()
    assert "Traceback" not in written.out + written.err + caplog.text
    assert "request failed" not in written.out + written.err + caplog.text
    assert runs() == before


def run(**more: Any) -> dict[str, Any]:
    return {"spec": SPEC, "selector": "os=linux", **more}


def spec(**more: Any) -> dict[str, Any]:
    return run(spec=SPEC | more)


RUNS = [
    ("unknown field", run(selectr="x"), "selectr"),
    ("unknown field inside", spec(shel="sh"), "spec.shel"),
    ("unknown kind", run(spec={"kind": "explode"}), "spec"),
    ("no kind", run(spec={"script": "x"}), "spec"),
    ("no spec", {"selector": "os=linux"}, "spec"),
    ("spec is a list", run(spec=[]), "spec"),
    ("no script", run(spec={"kind": "script"}), "spec.script"),
    ("script is a number", spec(script=5), "spec.script"),
    ("script is empty", spec(script=""), "spec.script"),
    ("NUL in the script", spec(script="a\0b"), "spec.script"),
    ("unknown shell", spec(shell="fish"), "spec.shell"),
    ("args is text", spec(args="a b"), "spec.args"),
    ("an arg is a number", spec(args=["a", 5]), "spec.args[1]"),
    ("NUL in an arg", spec(args=["a\0"]), "spec.args[0]"),
    ("env is a list", spec(env=["A=b"]), "spec.env"),
    ("an env value is a number", spec(env={"A": 5}), "spec.env.A"),
    ("bad env name", spec(env={"A-B": "x"}), "spec.env"),
    ("env name of our own", spec(env={"FLEETWIRE_X": "x"}), "spec.env.FLEETWIRE_X"),
    ("tty is a number", spec(tty=1), "spec.tty"),
    ("tty is text", spec(tty="yes"), "spec.tty"),
    ("timeout is false", spec(timeout=False), "spec.timeout"),
    ("timeout is text", spec(timeout="5"), "spec.timeout"),
    ("timeout is null", spec(timeout=None), "spec.timeout"),
    ("timeout is 0", spec(timeout=0), "spec.timeout"),
    ("timeout is negative", spec(timeout=-1), "spec.timeout"),
    ("timeout one above", spec(timeout=limits.TIMEOUT_S + 1), "spec.timeout"),
    ("grace one above", spec(grace=limits.GRACE_S + 1), "spec.grace"),
    ("any is false", run(any=False), "any"),
    ("any is 0", run(any=0), "any"),
    ("any is half", run(any=0.5), "any"),
    ("any is huge", run(any=10**30), "any"),
    ("selector and nodes", run(nodes=["a"]), "selector"),
    ("neither", run(selector=None), "selector"),
    ("nodes is text", run(selector=None, nodes="a"), "nodes"),
    ("nodes is empty", run(selector=None, nodes=[]), "nodes"),
    ("selector is a list", run(selector=["os"]), "selector"),
    ("selector of 10,000 characters", run(selector="a" * 10_000), "selector"),
    ("selector with a mistake", run(selector="os=="), "selector"),
    ("selector too deep", run(selector="(" * 33 + "a" + ")" * 33), "selector"),
    ("selector that matches nothing", run(selector="no=such"), "selector"),
    ("name is a number", run(name=5), "name"),
    ("name has a newline", run(name="a\nb"), "name"),
    ("queue timeout is 0", run(queue_timeout=0), "queue_timeout"),
    ("queue timeout one above", run(queue_timeout=limits.QUEUE_TIMEOUT_S + 1), "queue_timeout"),
    ("step unknown", run(spec={"kind": "scripted", "steps": [{"do": "fly"}]}), "spec.steps[0].do"),
    ("step without do", run(spec={"kind": "scripted", "steps": [{}]}), "spec.steps[0].do"),
    (
        "step with a code of 256",
        run(spec={"kind": "scripted", "steps": [{"do": "exit", "code": 256}]}),
        "spec.steps[0].code",
    ),
]


@pytest.mark.parametrize(("body", "field"), [case[1:] for case in RUNS], ids=[c[0] for c in RUNS])
def test_run_fields(server: Server, body: Any, field: str) -> None:
    answer = server.call("POST", "/api/v1/runs", body)
    assert answer.status == 422, answer
    assert answer.code
    assert answer.json.get("field") == field, answer.json


RAW = [
    ("empty", b"", 422, "bad-field"),
    ("not JSON", b"{", 400, "bad-json"),
    ("two values", b"{}{}", 400, "bad-json"),
    ("a list", b"[]", 422, "bad-field"),
    ("null", b"null", 422, "bad-field"),
    ("text", b'"x"', 422, "bad-field"),
    ("NUL", b"\0", 400, "bad-json"),
    ("UTF-16", '{"spec":1}'.encode("utf-16"), 400, "bad-json"),
    ("invalid UTF-8", b'{"name":"\xff"}', 400, "bad-json"),
    ("lone surrogate", rb'{"spec":{"kind":"script","script":"\ud800"}}', 400, "bad-json"),
    ("lone surrogate in a key", rb'{"\ud800":1}', 400, "bad-json"),
    ("overlong UTF-8", b'{"name":"\xc0\x80"}', 400, "bad-json"),
    ("deep lists", b"[" * 100_000 + b"]" * 100_000, 400, "bad-json"),
    ("deep objects", b'{"a":' * 50_000 + b"1" + b"}" * 50_000, 400, "bad-json"),
    ("a comment", b"/* x */ {}", 400, "bad-json"),
    ("single quotes", b"{'a':1}", 400, "bad-json"),
    ("trailing comma", b'{"a":1,}', 400, "bad-json"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "status", "code"), [case[1:] for case in RAW], ids=[case[0] for case in RAW]
)
def test_bodies_that_are_no_run(server: Server, body: bytes, status: int, code: str) -> None:
    answer = server.call("POST", "/api/v1/runs", body)
    assert (answer.status, answer.code) == (status, code), answer


@pytest.mark.parametrize(
    "number", ["1e400", "-1e400", "NaN", "Infinity", "-Infinity", "9" * 400, "9" * 5000, "1e309"]
)
def test_numbers_that_are_none(server: Server, number: str) -> None:
    body = json.dumps(run(queue_timeout=77)).replace("77", number).encode()
    answer = server.call("POST", "/api/v1/runs", body)
    assert answer.status in {400, 422}, answer
    assert answer.code in {"bad-json", "bad-field", "bad-spec"}


QUERIES = [
    ("/api/v1/runs?limit=0", "limit"),
    (f"/api/v1/runs?limit={limits.PAGE_ITEMS + 1}", "limit"),
    ("/api/v1/runs?limit=-1", "limit"),
    ("/api/v1/runs?limit=+1", "limit"),
    ("/api/v1/runs?limit=1.5", "limit"),
    ("/api/v1/runs?limit=1_0", "limit"),
    ("/api/v1/runs?limit=1e400", "limit"),
    ("/api/v1/runs?limit=" + "9" * 400, "limit"),
    ("/api/v1/runs?limit=%D9%A1", "limit"),  # an Arabic digit
    ("/api/v1/runs?limit=", "limit"),
    ("/api/v1/runs?limit=1&limit=2", "limit"),
    ("/api/v1/runs?limits=1", "limits"),
    ("/api/v1/runs?state=done", "state"),
    ("/api/v1/runs?cursor=x", "cursor"),
    ("/api/v1/runs?cursor=%00", "cursor"),
    ("/api/v1/runs?cursor=AAAA", "cursor"),
    ("/api/v1/runs?cursor=" + "A" * 201, "cursor"),
    ("/api/v1/nodes?cursor=!!", "cursor"),
    ("/api/v1/tokens?cursor=_w", "cursor"),
    ("/api/v1/me?x=1", "x"),
    (f"/api/v1/runs/{ID}?full=1", "full"),
    (f"/api/v1/runs/{ID}/events?logs=yes", "logs"),
    (f"/api/v1/attempts/{ID}/log?offset=1&tail=1", "tail"),
    (f"/api/v1/attempts/{ID}/log?line=1&tail=1", "tail"),
    (f"/api/v1/attempts/{ID}/log?tail=1&limit=5", "limit"),
    (f"/api/v1/attempts/{ID}/log?stream=stdout", "stream"),
    (f"/api/v1/attempts/{ID}/log?tail=1&stream=stdin", "stream"),
    (f"/api/v1/attempts/{ID}/log?offset=-1", "offset"),
    (f"/api/v1/attempts/{ID}/log/search", "q"),
    (f"/api/v1/attempts/{ID}/log/search?q=", "q"),
]


@pytest.mark.parametrize(("path", "field"), QUERIES)
def test_query_parameters(server: Server, path: str, field: str) -> None:
    answer = server.call("GET", path)
    assert answer.status == 422, answer
    assert answer.code == "bad-field"
    assert answer.json["field"] == field


def test_query_that_is_no_utf8_and_too_many_fields(server: Server) -> None:
    assert server.call("GET", "/api/v1/runs?state=%FF").code == "bad-field"
    many = "&".join(f"a{n}=1" for n in range(1000))
    assert server.call("GET", f"/api/v1/runs?{many}").code == "bad-field"


@pytest.mark.parametrize(
    "word",
    [
        "x",
        "0190b7",
        "..",
        "%2e%2e",
        "0190B7F0-1C2D",
        ID[:-1] + "g",
        ID + "0",
        "%00",
        "é",
        "'",
        "a" * 5000,
    ],
)
def test_ids_that_are_none(server: Server, word: str) -> None:
    for path in (
        "/api/v1/runs/{}",
        "/api/v1/runs/{}/why",
        "/api/v1/attempts/{}/log",
        "/api/v1/nodes/{}",
    ):
        from urllib.parse import quote  # noqa: PLC0415

        answer = server.call("GET", path.format(quote(word, safe="%")))
        assert (answer.status, answer.code) == (404, "not-found"), answer


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", f"/api/v1/runs/{ID}", None),
        ("GET", f"/api/v1/runs/{ID}/tasks", None),
        ("GET", f"/api/v1/runs/{ID}/why", None),
        ("GET", f"/api/v1/runs/{ID}/events", None),
        ("POST", f"/api/v1/runs/{ID}/stop", {}),
        ("GET", f"/api/v1/nodes/{ID}", None),
        ("GET", f"/api/v1/attempts/{ID}/log", None),
        ("GET", f"/api/v1/attempts/{ID}/log/raw", None),
        ("GET", f"/api/v1/attempts/{ID}/log/stream", None),
        ("GET", f"/api/v1/attempts/{ID}/log/search?q=x", None),
        ("GET", "/api/v1/nope", None),
        ("GET", "/api/v2/runs", None),
        ("GET", "/ws/nope", None),
        ("GET", "/assets/nope.js", None),
    ],
)
def test_what_is_not_there(server: Server, method: str, path: str, body: Any) -> None:
    answer = server.call(method, path, body)
    assert (answer.status, answer.code) == (404, "not-found")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/api/v1/runs"),
        ("DELETE", "/api/v1/runs"),
        ("PUT", "/api/v1/login"),
        ("POST", "/api/v1/me"),
        ("POST", "/healthz"),
        ("TRACE", "/api/v1/me"),
        ("POST", "/"),
    ],
)
def test_wrong_methods(server: Server, method: str, path: str) -> None:
    answer = server.call(method, path)
    assert (answer.status, answer.code) == (405, "method-not-allowed")
    assert answer.headers["allow"]


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/jsonx",
        "",
        "application/xml; charset=utf-8",
    ],
)
def test_other_media_types(server: Server, content_type: str) -> None:
    answer = server.call("POST", "/api/v1/runs", run(), headers={"Content-Type": content_type})
    assert (answer.status, answer.code) == (415, "unsupported-media-type")


def test_media_type_parameters_are_fine(server: Server) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    answer = server.call("POST", "/api/v1/runs", run(selector="no=such"), headers=headers)
    assert answer.code == "no-node-matches"


@pytest.mark.parametrize("key", ["", "x" * (limits.IDEMPOTENCY_KEY_CHARS + 1), "a\tb", "é"])
def test_bad_idempotency_keys(server: Server, key: str) -> None:
    answer = server.call("POST", "/api/v1/runs", run(), headers={"Idempotency-Key": key})
    assert answer.status == 422, answer
    assert answer.json["field"] == "Idempotency-Key"


@pytest.mark.parametrize(
    ("header", "status"), [("Idempotency-Key: b", 422), ("Authorization: Bearer fw_x", 401)]
)
def test_a_header_that_decides_is_sent_once(server: Server, header: str, status: int) -> None:
    body = b'{"spec": {"kind": "ping"}, "selector": "os=linux"}'
    head = (
        f"POST /api/v1/runs HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        f"Authorization: Bearer {server.token}\r\nIdempotency-Key: a\r\n{header}\r\n"
        "Content-Type: application/json\r\nConnection: close\r\n\r\n"
    )
    answer = server.raw(head.encode() + body)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer
    assert b"more than one" in answer


@pytest.mark.parametrize("grace", [-1, limits.GRACE_S + 1, "5", False])
def test_bad_grace_of_a_stop(server: Server, grace: Any) -> None:
    answer = server.call("POST", f"/api/v1/runs/{ID}/stop", {"grace": grace})
    assert (answer.status, answer.json["field"]) == (422, "grace")


def test_every_problem_says_what_to_do(server: Server) -> None:
    for body in (
        run(selectr="x"),
        spec(timeout=False),
        run(selector="no=such"),
        spec(env={"A-B": "x"}),
    ):
        document = server.call("POST", "/api/v1/runs", body).json
        assert document["detail"]
        assert document["hint"], document
        assert set(document) <= {
            "type",
            "title",
            "status",
            "detail",
            "code",
            "field",
            "hint",
            "labels",
        }
