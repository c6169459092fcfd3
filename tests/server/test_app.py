"""The server as a process: its start, its end, and what it leaves on the disk."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

WAIT_S = 40.0


class Process:
    def __init__(self, data: Path, *flags: str, **more: Any) -> None:
        self.data = data
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "fleetwire.server", "--data", str(data), "--port", "0", *flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **more,
        )

    def wait_serving(self) -> None:
        where = self.data / "server.json"
        deadline = time.monotonic() + WAIT_S
        while not where.exists():
            assert self.popen.poll() is None, self.popen.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        found = json.loads(where.read_text())
        assert found["pid"] == self.popen.pid
        self.port = int(found["url"].rpartition(":")[2])

    def wait_ready(self) -> None:
        deadline = time.monotonic() + WAIT_S
        while self.get("/readyz")[0] != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def end(self, number: int = signal.SIGTERM) -> tuple[float, str, str]:
        """Signal it; return the seconds it took, stdout and stderr."""
        began = time.monotonic()
        self.popen.send_signal(number)
        out, err = self.popen.communicate(timeout=WAIT_S)
        return time.monotonic() - began, out, err


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    made: list[Process] = []

    def start_(*flags: str, data: Path | None = None, **more: Any) -> Process:
        made.append(Process(data or tmp_path / "data", *flags, **more))
        return made[-1]

    yield start_
    for process in made:
        if process.popen.poll() is None:
            process.popen.kill()
            process.popen.communicate()


def login(process: Process) -> str:
    """Log in as the first admin; return the cookie."""
    connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=WAIT_S)
    password = (process.data / "admin-password").read_text().strip()
    connection.request(
        "POST",
        "/api/v1/login",
        json.dumps({"username": "admin", "password": password}),
        {"Content-Type": "application/json"},
    )
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    cookie = answer.headers["set-cookie"].partition(";")[0]
    connection.close()
    return str(cookie)


def test_start_serve_stop_start_again(start: Callable[..., Process]) -> None:
    process = start()
    process.wait_serving()
    assert process.get("/healthz") == (200, b'{"status":"ok"}')
    process.wait_ready()
    cookie = login(process)
    assert process.get("/api/v1/nodes", Cookie=cookie)[0] == 200
    password = (process.data / "admin-password").read_text().strip()
    took, out, err = process.end()
    assert process.popen.returncode == 0
    assert took < 3
    assert out == ""
    assert password not in err
    lines = [json.loads(line) for line in err.splitlines()]  # each line of the log is JSON
    assert [line["event"] for line in lines] == ["serving", "leaving"]
    assert lines[0]["login"].startswith("fleetwire login http://127.0.0.1:")
    assert lines[0]["login"].endswith("admin-password")
    assert not (process.data / "server.json").exists()
    for name in ("admin-password", "server-key", "fleetwire.db"):
        assert (process.data / name).stat().st_mode & 0o077 == 0, name
    again = start(data=process.data)
    again.wait_serving()
    assert again.get("/api/v1/me", Cookie=cookie)[0] == 200  # the login is in the database


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_open_streams_do_not_hold_it_up(start: Callable[..., Process], number: int) -> None:
    process = start()
    process.wait_serving()
    cookie = login(process)
    origin = f"http://127.0.0.1:{process.port}"
    held = []
    for _ in range(3):  # a stream of events needs a run, and a run a node: hold plain connections
        held.append(socket.create_connection(("127.0.0.1", process.port)))
        held[-1].sendall(
            f"GET /healthz HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\n".encode()
        )
    assert process.get("/api/v1/me", Cookie=cookie)[0] == 200
    took, _, err = process.end(number)
    assert process.popen.returncode == 0, err
    assert took < 3
    for connection in held:
        connection.close()


def test_it_leaves_with_its_parent(start: Callable[..., Process]) -> None:
    ours, its = os.pipe()
    process = start("--parent-fd", str(ours), pass_fds=(ours,))
    os.close(ours)
    process.wait_serving()
    began = time.monotonic()
    os.close(its)
    process.popen.communicate(timeout=WAIT_S)
    assert process.popen.returncode == 0
    assert time.monotonic() - began < 3


def test_kill_and_start_again(start: Callable[..., Process]) -> None:
    process = start()
    process.wait_serving()
    cookie = login(process)
    process.popen.kill()
    process.popen.communicate()
    (process.data / "server.json").unlink()  # what a killed process leaves lying
    again = start(data=process.data)
    again.wait_serving()
    assert again.get("/api/v1/me", Cookie=cookie)[0] == 200


def test_a_data_folder_has_one_server(start: Callable[..., Process]) -> None:
    process = start()
    process.wait_serving()
    second = start(data=process.data)
    _, err = second.popen.communicate(timeout=WAIT_S)
    assert second.popen.returncode == 1
    assert "Another server uses" in err
    assert process.get("/healthz")[0] == 200


def test_a_port_that_is_taken(start: Callable[..., Process], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = start("--port", str(taken.getsockname()[1]), data=tmp_path / "x")
        _, err = process.popen.communicate(timeout=WAIT_S)
    assert process.popen.returncode == 1
    assert "Cannot listen on" in err
    assert "Traceback" not in err


def test_another_address_is_refused(start: Callable[..., Process], tmp_path: Path) -> None:
    process = start("--host", "0.0.0.0", data=tmp_path / "x")
    _, err = process.popen.communicate(timeout=WAIT_S)
    assert process.popen.returncode == 2
    assert "TLS" in err
    assert not (tmp_path / "x").exists()


def test_the_password_is_shown_once_where_asked(start: Callable[..., Process]) -> None:
    process = start("--show-password")
    process.wait_serving()
    password = (process.data / "admin-password").read_text().strip()
    _, out, err = process.end()
    assert out.count(password) == 1
    assert password not in err
    again = start("--show-password", data=process.data)
    again.wait_serving()
    _, out, _ = again.end()
    assert out == ""


def test_small_packets_leave_at_once(start: Callable[..., Process]) -> None:
    process = start()
    process.wait_serving()
    took = []
    connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=WAIT_S)
    for _ in range(20):
        began = time.monotonic()
        connection.request("GET", "/healthz")
        connection.getresponse().read()
        took.append(time.monotonic() - began)
    connection.close()
    assert sorted(took)[5] < 0.03  # Nagle against delayed acknowledgements costs 40 ms
