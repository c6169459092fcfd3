"""Enrolment against a real HTTP server, which is all that this door is."""

from __future__ import annotations

import base64
import json
import stat
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from fleetwire.agent import config, enrol, identity, keys
from fleetwire.agent.errors import ConfigError, EnrolmentRefused, IdentityUnreadable

NODE = "0190b7f0-1c2d-7abc-8def-0123456789ab"


class Door:
    """Answers with what is queued, and keeps what was asked."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any]] = []
        self.asked: list[dict[str, Any]] = []
        self.url = ""

    def accept(self) -> None:
        self.answers.append(
            (
                201,
                {
                    "node": NODE,
                    "name": "web-1",
                    "cluster": "c",
                    "server_keys": [{"id": "k", "key": base64.b64encode(b"p" * 32).decode()}],
                    "server_time": "2026-11-20T00:00:00Z",
                },
            )
        )


@pytest.fixture
def door() -> Iterator[Door]:
    door = Door()

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            door.asked.append({"path": self.path, **json.loads(body)})
            status, answer = door.answers.pop(0)
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Answer)
    door.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield door
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def settings(door: Door, tmp_path: Path) -> Callable[..., config.AgentConfig]:
    def make(**flags: object) -> config.AgentConfig:
        given = {"server": door.url, "state": str(tmp_path), "name": "web-1", "token": "t0ken"}
        return config.load({**given, **flags}, {}, None)

    return make


def no_pause(_: float) -> None:
    raise AssertionError("it should not have waited")


def ensure(settings: config.AgentConfig) -> identity.Identity:
    return enrol.ensure_identity(settings, capacity=3, pause=no_pause, ask_token=None)


def test_enrols_once(
    door: Door, settings: Callable[..., config.AgentConfig], tmp_path: Path
) -> None:
    door.accept()
    found = ensure(settings(labels=["role=db"]))
    assert (found.node, found.name, found.cluster) == (NODE, "web-1", "c")
    assert found.server_keys == {"k": b"p" * 32}
    (asked,) = door.asked
    assert asked["path"] == "/api/agents/register/"
    assert (asked["token"], asked["name"], asked["capacity"]) == ("t0ken", "web-1", 3)
    assert asked["labels"]["role"] == "db"
    assert asked["labels"]["os"] == "linux"
    assert base64.b64decode(asked["signing_key"]) == found.signing_key
    assert base64.b64decode(asked["sealing_key"]) == found.sealing_key
    assert asked["incarnation"] == found.incarnation
    path = tmp_path / "identity.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    # Never again: there is no answer left in the queue, and no token is needed.
    assert ensure(settings(token=None)) == found


def test_the_keys_work() -> None:
    pair = keys.make_signing_key()
    signature = keys.sign(pair.private, b"data")
    assert keys.verifies(pair.public, b"data", signature)
    assert not keys.verifies(pair.public, b"date", signature)
    assert not keys.verifies(pair.public, b"data", b"short")
    assert len(keys.make_sealing_key().public) == 32


def test_a_crash_after_the_servers_yes_repeats_with_the_same_keys(
    door: Door, settings: Callable[..., config.AgentConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    door.accept()
    save, saved = identity.save, []

    def crash(state: str, own: identity.Identity) -> None:
        if own.enrolled:
            raise KeyboardInterrupt
        saved.append(own)
        save(state, own)

    monkeypatch.setattr(identity, "save", crash)
    with pytest.raises(KeyboardInterrupt):
        ensure(settings())
    monkeypatch.setattr(identity, "save", save)
    door.accept()
    found = ensure(settings())
    assert found.signing_key == saved[0].signing_key
    assert door.asked[0] == door.asked[1]


@pytest.mark.parametrize("status", [400, 401, 403, 409, 422])
def test_refused(door: Door, settings: Callable[..., config.AgentConfig], status: int) -> None:
    door.answers.append((status, {"detail": "The token was used.", "hint": "Make another one."}))
    with pytest.raises(EnrolmentRefused, match=r"The token was used\. Make another one\."):
        ensure(settings())


@pytest.mark.parametrize("answer", [b"<html>", [], {"node": 1}])
def test_something_else_answers(
    door: Door, settings: Callable[..., config.AgentConfig], answer: object
) -> None:
    door.answers.append((200, answer))
    with pytest.raises(EnrolmentRefused, match="no Fleetwire server"):
        ensure(settings())
    door.answers.append((404, answer))
    with pytest.raises(EnrolmentRefused, match="gave no reason"):
        ensure(settings())


def test_tries_for_ever_while_the_server_is_away(
    door: Door, settings: Callable[..., config.AgentConfig]
) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 10:
            door.accept()
        else:
            door.answers.append((503, b""))

    door.answers.append((500, b""))
    enrol.ensure_identity(settings(), capacity=3, pause=pause, ask_token=None)
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]


def test_the_backup_server_takes_it_in(
    door: Door, settings: Callable[..., config.AgentConfig]
) -> None:
    door.accept()
    found = ensure(settings(server="http://127.0.0.1:9", backup_server=door.url))
    assert found.node == NODE


def test_where_the_token_comes_from(
    settings: Callable[..., config.AgentConfig], tmp_path: Path
) -> None:
    path = tmp_path / "token"
    path.write_text("  from the file\n")
    assert enrol.read_token(settings(token_file=str(path)), None) == "from the file"
    assert enrol.read_token(settings(), None) == "t0ken"
    assert enrol.read_token(settings(token=None), lambda: "typed\n") == "typed"
    environ = {"FLEETWIRE_ENROLMENT_TOKEN": "from the environment"}
    assert config.load({"server": "x"}, environ, None).token == "from the environment"
    with pytest.raises(ConfigError, match="no enrolment token was given"):
        enrol.read_token(settings(token=None), None)
    with pytest.raises(ConfigError, match="cannot be read"):
        enrol.read_token(settings(token_file=str(tmp_path / "no")), None)
    with pytest.raises(ConfigError, match="is no token"):
        enrol.read_token(settings(token="x\ny"), None)


def test_identity_that_cannot_be_read(
    settings: Callable[..., config.AgentConfig], tmp_path: Path
) -> None:
    (tmp_path / "identity.json").write_text("{")
    with pytest.raises(IdentityUnreadable, match="Restore it"):
        ensure(settings())
    (tmp_path / "identity.json").unlink()
    assert identity.load(str(tmp_path)) is None
