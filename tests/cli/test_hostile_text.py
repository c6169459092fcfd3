"""What a hostile node or task says, as every command shows it: made visible, on its own line."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetwire.agent.logs import JsonFormatter, TextFormatter
from fleetwire.cli import app, completion, doctor, nodes, outcome, run, runs, show, timeline, up
from fleetwire.cli.doctor import Finding
from fleetwire.client import Node, NodeEvent, Run, Task, TimelineLine
from fleetwire.core.errors import FleetwireError
from fleetwire.core.visible import UNSAFE
from fleetwire.server import log as server_log

HOSTILE = st.text(
    st.sampled_from("\x1b\x9b\x07\r\n\x00\x7f\u2028\u202e\u2066\U000e0041$(;`'\"-x "), max_size=12
)
TREES = st.recursive(
    HOSTILE | st.integers() | st.none(),
    lambda of: st.lists(of, max_size=3) | st.dictionaries(HOSTILE, of, max_size=3),
    max_leaves=6,
)


class Shown:
    """Both streams of a command, as text."""

    def __init__(self) -> None:
        self.bytes = io.BytesIO()
        self.stream = io.TextIOWrapper(self.bytes, encoding="utf-8", write_through=True)

    @property
    def text(self) -> str:
        return self.bytes.getvalue().decode()


@contextlib.contextmanager
def shown(lines: int | None = None) -> Iterator[Shown]:
    """Whatever is printed meanwhile holds nothing that a terminal obeys, and so many lines."""
    both = Shown()
    with contextlib.redirect_stdout(both.stream), contextlib.redirect_stderr(both.stream):
        yield both
    assert UNSAFE.search(both.text) is None, repr(both.text)
    if lines is not None:
        assert both.text.count("\n") == lines


@given(st.dictionaries(HOSTILE, TREES, max_size=4), HOSTILE, st.dictionaries(HOSTILE, HOSTILE))
def test_a_node_and_its_inventory(
    inventory: dict[str, Any], text: str, labels: dict[str, str]
) -> None:
    node = Node(
        "id", text, "online", agent_version=text, address=text, labels=labels,
        inventory=inventory, warnings=[text],
    )  # fmt: skip
    with shown():
        nodes.show_node(node)
        nodes.show_events([NodeEvent("2026-11-20T00:00:00.000Z", text)])


@given(HOSTILE)
def test_a_run_its_reasons_and_its_timeline(text: str) -> None:
    task = Task("t", 0, "a", "refused", node=text, outcome="refused", reason=text)
    with shown():
        runs.show_run(Run("r", state="ended", tasks=[task], name=text, created_by=text))
    for line in (
        timeline.text(
            TimelineLine(at="2026-11-20T00:00:00.000Z", kind="run", text=text, node=text)
        ),
        outcome.ending(task),
        outcome.place(task),
        *outcome.summary([task, task]),
        outcome.progress({"t": task}, 80),
    ):
        assert UNSAFE.search(line) is None
        assert len(line.splitlines()) <= 1


@given(HOSTILE)
def test_what_doctor_finds_on_a_terminal_with_colours(text: str) -> None:
    values = argparse.Namespace(output="text")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doctor, "examine", lambda _: [Finding("warn", text, text, text or "x")])
        patch.setattr(doctor, "coloured", lambda _: True)
        patch.setattr(doctor, "mark", lambda word, **_: word)  # our own colours aside
        with shown(lines=2):
            doctor.call(values)


@given(HOSTILE)
def test_errors_and_words_of_our_own(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch, shown():
        patch.setattr(app, "_keep_details", lambda: "a file")
        app._explain(FleetwireError(text, hint=text))
        app._fault(ValueError(text))
        run.say(text)
        up.say(text)


@given(TREES)
def test_json_for_programs(value: Any) -> None:
    with shown() as both:
        show.write_json(msgspec.json.encode(value))
    assert json.loads(both.text) == value


@given(st.lists(TREES, max_size=3))
def test_a_list_for_programs(items: list[Any]) -> None:
    body = msgspec.json.encode({"items": items, "next_cursor": None})
    with shown() as both:
        assert show.write_list(body, "json") == 0
    assert json.loads(both.text)["items"] == items
    with shown(lines=len(items)) as both:
        assert show.write_list(body, "jsonl") == 0
    assert [json.loads(line) for line in both.text.splitlines()] == items


OWNED = "\x1b]0;owned\x07\x9b31m\u202e"
"""Retitles the window, colours what follows and turns its reading order."""
_FIELDS = "id name link admin outcome user user_id project project_id role token command password"
SAID: dict[str, Any] = {
    **dict.fromkeys([*_FIELDS.split(), "run", "csrf"], OWNED),
    "state": "ended",
    "roles": [OWNED],
    "lines": [],
    "tasks": [],
    "version": 1,
}


class Owned(BaseHTTPRequestHandler):
    """Answers whatever it is asked with the same hostile text in each field."""

    protocol_version = "HTTP/1.1"

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        said = {**SAID, "user": SAID} if self.path.endswith("/login") else SAID
        body = msgspec.json.encode({**said, "items": [said], "next_cursor": None})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def owned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Owned) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("FLEETWIRE_URL", url)
        monkeypatch.setenv("FLEETWIRE_TOKEN", "t")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        yield url
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("output", ["text", "json"])
def test_whatever_a_server_says_of_what_was_done(owned: str, tmp_path: Path, output: str) -> None:
    (tmp_path / "value").write_text("hunter2-hunter2\n")
    value = str(tmp_path / "value")
    for words in (
        ("login", owned, "--password-file", value),
        ("users", "create", "ann"),
        ("users", "disable", "ann"),
        ("users", "reset-password", "ann"),
        ("projects", "create", "web"),
        ("roles", "grant", "ann", "viewer"),
        ("roles", "revoke", "ann", "viewer"),
        ("secrets", "set", "db", "--file", value),
        ("tokens", "create", "ci"),
        ("tokens", "create", "--enrolment"),
        ("nodes", "disable", "web-1"),
        ("nodes", "delete", "web-1"),
        ("runs", "stop", "r1"),
        ("runs", "show", "r1"),
        ("runs", "why", "r1"),
        ("users", "end-totp", OWNED),
        ("projects", "delete", OWNED),
        ("secrets", "delete", OWNED),
        ("tokens", "delete", OWNED),
    ):
        with shown() as both:
            assert app.run([*words, "--output", output]) == 0, (words, both.text)


@pytest.mark.parametrize("output", ["text", "json"])
def test_the_key_that_an_export_says_it_has(tmp_path: Path, output: str) -> None:
    path = tmp_path / f"{OWNED}.jsonl"
    beginning = {
        "fleetwire_audit": 1, "cluster": OWNED, "chain": OWNED, "project": OWNED,
        "key": f"{OWNED}\nAll of it is signed.", "rotations": [],
    }  # fmt: skip
    end = {"end": {"number": 0, "hash": ""}}
    path.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in (beginning, end)))
    with shown(lines=2 if output == "text" else 1) as both:
        assert app.run(["audit", "verify", str(path), "--output", output]) == 0, both.text


@given(HOSTILE)
def test_a_shell_is_completed_with_names_only(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(completion, "_asked", lambda _: [(text, text), ("web-1", text)])
        with shown():
            completion.call(argparse.Namespace(words=True, tail=["nodes", "show", ""], shell=None))
        words = [word for word, _ in completion.candidates(["nodes", "show", ""])]
    assert "web-1" in words
    assert all(completion._WORD.fullmatch(word) for word in words)


@given(HOSTILE)
@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()], ids=["text", "json"])
def test_a_line_of_the_agents_log(formatter: logging.Formatter, text: str) -> None:
    record = logging.LogRecord("agent", logging.INFO, "", 0, "declined %s", (text,), None)
    record.fields = {"why": text}
    line = formatter.format(record)
    assert UNSAFE.search(line) is None
    assert len(line.splitlines()) == 1


@given(HOSTILE)
def test_a_line_of_the_servers_log(text: str) -> None:
    event = server_log._visible(None, "info", {"event": text, "error": text, "count": 1})
    assert event["count"] == 1
    assert UNSAFE.search(event["event"] + event["error"]) is None


def test_what_is_asked_for_raw_is_raw() -> None:
    """`--raw` of logs and runs is tested with real runs; here: it is the only way."""
    flags: Callable[[str], bool] = lambda name: any(  # noqa: E731
        "--raw" in option.names for option in app.parser_of(app.COMMANDS[name]).arguments
    )
    assert [name for name in app.COMMANDS if flags(name)] == ["run", "runs logs"]
