"""One log, read in every way; the bytes are told apart from any text."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import http.client
import random
import threading
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from structlog.testing import capture_logs

from fleetwire.core.chunks import Piece
from fleetwire.server.api import attempts, views
from fleetwire.server.api.write import MERGE_US, parts
from fleetwire.server.log import is_news
from fleetwire.server.logs.base import Chunk

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.server.api.conftest import Server


@pytest.fixture(scope="module")
def attempt(server: Server) -> str:
    server.add_node("logs-a")
    return str(server.submit(nodes=["logs-a"])["tasks"][0]["attempt"])


@pytest.fixture(scope="module")
def log(server: Server, attempt: str) -> str:
    server.append(attempt, b"one\ntwo\n")
    server.append(attempt, b"oops\n", stream=2)
    server.append(attempt, b"three \xff\xfe\0 bytes\n")
    server.append(attempt, b"no newline")
    return f"/api/v1/attempts/{attempt}/log"


WHOLE = b"one\ntwo\noops\nthree \xff\xfe\0 bytes\nno newline"


def text(answer: dict[str, Any]) -> bytes:
    return b"".join(base64.b64decode(part["bytes"]) for part in answer["parts"])


def test_bytes(server: Server, log: str) -> None:
    answer = server.call("GET", log).json
    views.LogBytes.model_validate_json(msgspec.json.encode(answer))
    assert text(answer) == WHOLE
    assert (answer["offset"], answer["next_offset"], answer["length"]) == (
        0,
        len(WHOLE),
        len(WHOLE),
    )
    assert answer["complete"] is False
    assert [part["stream"] for part in answer["parts"]][:3] == ["stdout", "stderr", "stdout"]
    middle = server.call("GET", f"{log}?offset=5&limit=7").json
    assert text(middle) == WHOLE[5:12]
    assert middle["next_offset"] == 12
    assert middle["parts"][0]["offset"] == 5
    past = server.call("GET", f"{log}?offset=100000").json
    assert (past["parts"], past["next_offset"]) == ([], 100000)


def test_lines(server: Server, log: str) -> None:
    answer = server.call("GET", f"{log}?line=1&lines=3").json
    views.LogLines.model_validate_json(msgspec.json.encode(answer))
    assert [line["text"] for line in answer["lines"]] == [
        "two",
        "oops",
        "three \ufffd\ufffd\0 bytes",
    ]
    assert [line["stream"] for line in answer["lines"]] == ["stdout", "stderr", "stdout"]
    assert answer["first_line"] == 1
    assert answer["total_lines"] == 5
    assert answer["next_line"] == 4


def test_tail(server: Server, log: str) -> None:
    answer = server.call("GET", f"{log}?tail=2").json
    assert [line["line"] for line in answer["lines"]] == [3, 4]
    assert answer["lines"][-1]["text"] == "no newline"


def test_stream_filter(server: Server, log: str) -> None:
    answer = server.call("GET", f"{log}?line=0&stream=stderr").json
    assert [line["text"] for line in answer["lines"]] == ["oops"]
    assert [
        line["text"] for line in server.call("GET", f"{log}?tail=1&stream=stderr").json["lines"]
    ] == ["oops"]


def test_search(server: Server, log: str) -> None:
    answer = server.call("GET", f"{log}/search?q=o&limit=2").json
    views.LogMatches.model_validate_json(msgspec.json.encode(answer))
    assert [match["text"] for match in answer["matches"]] == ["one", "two"]
    more = server.call("GET", f"{log}/search?q=o&from_line={answer['next_line']}").json
    assert [match["text"] for match in more["matches"]] == ["oops", "no newline"]
    assert more["next_line"] is None


def test_raw_is_exact(server: Server, log: str) -> None:
    answer = server.call("GET", f"{log}/raw")
    assert answer.body == WHOLE
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment; ")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_large_raw_log_is_exact(server: Server) -> None:
    run = server.submit(nodes=["logs-a"])
    attempt = run["tasks"][0]["attempt"]
    chance = random.Random(7)  # noqa: S311 - bytes that do not compress, the same each time
    total = hashlib.sha256()
    for _ in range(5):
        data = chance.randbytes(700_001)
        total.update(data)
        server.append(attempt, data)
    answer = server.call("GET", f"/api/v1/attempts/{attempt}/log/raw")
    assert hashlib.sha256(answer.body).digest() == total.digest()


@pytest.mark.parametrize("cut_by", ["the log", "the reader's rights", "a fault"])
def test_a_download_that_is_cut_short_looks_so(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    cut_by: str,
) -> None:
    """Its reader cannot take it for whole, no second answer begins within it, and only a fault of
    ours is logged as one.
    """
    name = "cut-by-" + cut_by.rpartition(" ")[2]
    server.add_node(name)
    attempt = server.submit(nodes=[name])["tasks"][0]["attempt"]
    server.append(attempt, b"x" * 3000)
    token = server.new_user(name, "viewer")
    waits = threading.Event()
    read = server.process.logs.read

    async def read_some(segment: str, attempt: str, offset: int, limit: int) -> list[Chunk]:
        if not offset:
            return await read(segment, attempt, offset, limit)
        if cut_by == "the reader's rights":
            waits.set()
            await asyncio.Event().wait()
        if cut_by == "a fault":
            raise ZeroDivisionError
        return []

    monkeypatch.setattr(attempts, "RAW_BYTES", 1000)
    monkeypatch.setattr(server.process.logs, "read", read_some)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    with contextlib.closing(connection), capture_logs() as told:
        path = f"/api/v1/attempts/{attempt}/log/raw"
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        assert response.status == 200
        if cut_by == "the reader's rights":
            assert waits.wait(30)
            assert server.call("PATCH", f"/api/v1/users/{name}", {"disabled": True}).status == 200
        with pytest.raises(http.client.IncompleteRead) as cut:
            response.read()
    assert cut.value.partial == b"x" * 1000
    (line,) = [one for one in told if one["log_level"] in {"warning", "error"}]
    is_ours = cut_by == "a fault"
    assert line["event"] == ("request failed" if is_ours else "answer cut short")
    assert ("ZeroDivisionError" in line["error"]) is is_ours
    assert "Traceback" not in caplog.text
    assert [is_news(record) for record in caplog.records] == [False]


def test_a_log_whose_reader_has_gone_is_read_no_further(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = server.submit(nodes=["logs-a"])["tasks"][0]["attempt"]
    server.append(attempt, b"x" * 3000)
    reads: list[int] = []
    waits, gone = threading.Event(), threading.Event()
    read = server.process.logs.read

    async def read_some(segment: str, attempt: str, offset: int, limit: int) -> list[Chunk]:
        reads.append(offset)
        if not offset:
            return await read(segment, attempt, offset, limit)
        waits.set()
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        raise AssertionError

    monkeypatch.setattr(attempts, "RAW_BYTES", 1000)
    monkeypatch.setattr(server.process.logs, "read", read_some)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    with capture_logs() as told:
        with contextlib.closing(connection):
            headers = {"Authorization": f"Bearer {server.token}"}
            connection.request("GET", f"/api/v1/attempts/{attempt}/log/raw", headers=headers)
            response = connection.getresponse()
            assert response.status == 200
            assert waits.wait(30)
            response.close()
        assert gone.wait(30)
    assert reads == [0, 1000]
    assert [one for one in told if one["log_level"] in {"warning", "error"}] == []


def test_a_log_without_output(server: Server) -> None:
    attempt = server.submit(nodes=["logs-a"])["tasks"][0]["attempt"]
    path = f"/api/v1/attempts/{attempt}/log"
    assert server.call("GET", path).json["parts"] == []
    assert server.call("GET", f"{path}?tail=5").json["lines"] == []
    assert server.call("GET", f"{path}/raw").body == b""
    assert server.call("GET", f"{path}/search?q=x").json["matches"] == []


def test_gaps_have_a_length_and_no_bytes(server: Server) -> None:
    attempt = server.submit(nodes=["logs-a"])["tasks"][0]["attempt"]
    server.append(attempt, b"before\n")
    server.append(attempt, b"after\n", gap=1000)
    path = f"/api/v1/attempts/{attempt}/log"
    answer = server.call("GET", path).json
    assert answer["next_offset"] == 7 + 1000 + 6
    gap = answer["parts"][1]
    assert (gap["stream"], gap["offset"], gap["length"], gap["bytes"]) == ("gap", 7, 1000, "")
    assert answer["parts"][2]["offset"] == 1007
    assert server.call("GET", f"{path}/raw").body == b"before\nafter\n"


def test_a_deleted_segment_is_gone_with_the_reason(new_server: Callable[..., Server]) -> None:
    server = new_server()
    server.add_node("a")
    attempt = server.submit(nodes=["a"])["tasks"][0]["attempt"]
    server.append(attempt, b"x\n")
    logs = server.process.logs
    server.run(logs.delete_segment(logs.segment_now(), "past its retention of 30 days"))
    path = f"/api/v1/attempts/{attempt}/log"
    for way in ("", "?tail=1", "?line=0", "/raw", "/search?q=x"):
        answer = server.call("GET", path + way)
        assert (answer.status, answer.code) == (410, "log-gone"), way
        assert "retention of 30 days" in answer.json["detail"]


def test_neighbours_of_one_stream_and_time_are_one_part() -> None:
    at = 1_000_000
    pieces = [
        Piece(1, 2, at), Piece(1, 2, at + MERGE_US), Piece(2, 1, at + MERGE_US),
        Piece(2, 1, at + 2 * MERGE_US + 1), Piece(0, 50, at), Piece(1, 1, at),
    ]  # fmt: skip
    made = parts([Chunk("a", 10, b"aabbcde", pieces)])
    assert [(p.offset, p.stream, p.length, bytes(p.bytes)) for p in made] == [
        (10, "stdout", 4, b"aabb"),
        (14, "stderr", 1, b"c"),
        (15, "stderr", 1, b"d"),
        (16, "gap", 50, b""),
        (66, "stdout", 1, b"e"),
    ]
