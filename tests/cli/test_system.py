"""The command line against a real system: server, agents, shims."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import System

pytestmark = pytest.mark.slow


def call(environ: dict[str, str], *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "fleetwire.cli", *words],
        env=environ, capture_output=True, check=False, timeout=60,
    )  # fmt: skip


def wait_until(holds: Callable[[], bool], *, patience: float = 20.0, what: str = "") -> None:
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, f"not within {patience} s: {what}"
        time.sleep(0.02)


LINES = "for i in $(seq 1 20); do echo line $i; sleep 0.1; done; exit 7"
EXPECTED = b"".join(b"line %d\n" % n for n in range(1, 21))


def test_one_node_keeps_streams_apart_and_gives_the_scripts_code(system: System) -> None:
    done = system("run", "--node", "local-1", "--", "printf out; echo err >&2; exit 9")
    assert (done.stdout, done.stderr, done.returncode) == (b"out", b"err\n", 9)


def test_several_nodes_have_prefixes(system: System) -> None:
    done = system("run", "--node", "local-1", "--node", "local-2", "--", "echo a; echo b")
    assert sorted(done.stdout.splitlines()) == [
        b"local-1 | a", b"local-1 | b", b"local-2 | a", b"local-2 | b",
    ]  # fmt: skip
    assert done.returncode == 0


def test_a_failure_on_several_nodes(system: System) -> None:
    script = b"exit 3\n"
    done = system("run", "--node", "local-1", "--node", "local-2", "--script", "-", stdin=script)
    assert done.returncode == 1
    assert b"local-1: failed (exit 3)" in done.stderr
    assert b"2 tasks: 2 failed" in done.stderr


def test_grouped_output_is_shown_once(system: System) -> None:
    done = system("run", "--node", "local-1", "--node", "local-2", "--group", "--", "echo same")
    assert done.stdout.count(b"same") == 1
    assert b"local-1, local-2: succeeded" in done.stdout


def test_escapes_are_visible_unless_raw(system: System) -> None:
    words = ("run", "--node", "local-1")
    script = r"printf '\033[2J\n'"
    assert system(*words, "--", script).stdout == b"\\x1b[2J\n"
    assert system(*words, "--raw", "--", script).stdout == b"\x1b[2J\n"


def test_json_and_jsonl(system: System) -> None:
    run = system.json("run", "--node", "local-1", "--", "echo hi")
    assert (run["state"], run["outcome"]) == ("ended", "succeeded")
    assert run["tasks"][0]["log"]["sha256"] == hashlib.sha256(b"hi\n").hexdigest()
    done = system("run", "--node", "local-1", "--output", "jsonl", "--", "echo hi")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[-1] == {"event": "end", "data": {}}
    assert {event["event"] for event in events} == {"run", "task", "log", "end"}


def test_detach_then_show_logs_why(system: System) -> None:
    run = system.json("run", "--node", "local-1", "--detach", "--", "echo one; echo two")
    short = run["id"][:18]
    followed = system("runs", "logs", short, "-f")
    assert (followed.stdout, followed.returncode) == (b"one\ntwo\n", 0)
    shown = system("runs", "show", short).stdout.decode()
    assert hashlib.sha256(b"one\ntwo\n").hexdigest() in shown
    assert "succeeded" in shown
    why = system("runs", "why", short).stdout.decode()
    assert "local-1" in why
    assert "started" in why
    assert system("runs", "logs", short, "--search", "tw").stdout == b"1:two\n"
    assert system("runs", "logs", short, "--tail", "1").stdout == b"two\n"
    assert run["id"] in {item["id"] for item in system.json("runs")["items"]}


def test_raw_logs_are_byte_exact(system: System, tmp_path: Path) -> None:
    data = os.urandom(300_000) + b"\n" + b"x" * 10_000_000 + b"no newline at the end"
    (tmp_path / "data").write_bytes(data)
    words = ("run", "--node", "local-1", "--output", "json", "--", f"cat {tmp_path}/data")
    run = json.loads(system(*words).stdout)
    assert run["tasks"][0]["log"]["sha256"] == hashlib.sha256(data).hexdigest()
    assert system("runs", "logs", run["id"], "--raw").stdout == data
    assert system("runs", "logs", run["id"], "-f", "--raw").stdout == data


def test_a_selector_that_matches_nothing(system: System) -> None:
    done = system("run", "--on", "nothing=here", "--", "true")
    assert done.returncode == 2
    assert b"nothing=here" in done.stderr


def test_stop_waits_until_it_is_over(system: System) -> None:
    run = system.json("run", "--node", "local-1", "--detach", "--", "sleep 100")
    done = system("runs", "stop", run["id"], "--grace", "1s", "--wait")
    assert b"has ended: canceled" in done.stdout


def test_time_out_is_124(system: System) -> None:
    done = system("run", "--node", "local-1", "--timeout", "500ms", "--", "sleep 50")
    assert done.returncode == 124


def test_ctrl_c_detaches_and_twice_stops(system: System) -> None:
    for presses, code in ((1, 130), (2, 125)):
        running = system.popen("run", "--node", "local-1", "--", "echo go; sleep 60")
        assert running.stdout.readline() == b"go\n"
        running.send_signal(signal.SIGINT)
        told = running.stderr.readline()
        assert b"Detached" in told
        if presses == 2:
            running.stderr.readline()
            running.stderr.readline()
            running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=30)
        assert running.returncode == code, err
        assert out == b""
        name = told.decode().split()[2]
        if presses == 1:
            assert b"canceled" in system("runs", "stop", name, "--grace", "0s", "--wait").stdout


def test_a_reader_that_goes_away_is_no_error(system: System) -> None:
    running = system.popen("run", "--node", "local-1", "--", "yes | head -c 5000000")
    running.stdout.read(10)
    running.stdout.close()
    told = running.stderr.read()
    running.stderr.close()
    assert running.wait(30) == 141
    assert b"goes on" in told
    assert b"Traceback" not in told


def test_tokens_and_whoami(system: System) -> None:
    assert system.json("whoami")["name"] == "admin"
    made = system.json("tokens", "create", "ci", "--expires-in", "1h")
    assert made["token"].encode() not in system("tokens").stdout
    assert system("tokens", "delete", made["id"]).returncode == 0
    enrolment = system.json("tokens", "create", "--enrolment", "--label", "role=web")
    assert enrolment["labels"] == {"role": "web"}
    assert system("tokens", "delete", enrolment["id"], "--enrolment").returncode == 0


def test_a_wrong_token_is_not_allowed(system: System) -> None:
    environ = system.environ | {"FLEETWIRE_URL": system.told["url"], "FLEETWIRE_TOKEN": "fw_no"}
    done = call(environ, "runs")
    assert done.returncode == 4


def test_login_and_logout(system: System, tmp_path: Path) -> None:
    environ = system.environ | {"XDG_CONFIG_HOME": str(tmp_path)}

    done = call(
        environ, "login", system.told["url"], "--password-file", system.told["password_file"]
    )
    assert done.returncode == 0, done.stderr
    file = tmp_path / "fleetwire" / "cli.toml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert call(environ, "whoami").returncode == 0
    assert b"token is ended" in call(environ, "logout").stdout
    assert call(environ, "whoami").returncode == 4


def test_doctor_finds_nothing_wrong(system: System) -> None:
    done = system("doctor", "--data", str(system.data), "--output", "json")
    assert done.returncode == 0, done.stdout
    states = {item["check"]: item["state"] for item in json.loads(done.stdout)["items"]}
    assert states["nodes"] == "ok"
    assert states["login"] == "ok"


def test_agent_status(system: System) -> None:
    state = str(system.data / "agents" / "1")
    wait_until((system.data / "agents" / "1" / "agent-status.json").exists)
    line = system("agent", "status", "--state", state, "--output", "jsonl")
    assert line.stdout.count(b"\n") == 1
    assert json.loads(line.stdout)["name"] == "local-1"
    done = system("agent", "status", "--state", state)
    assert done.returncode == 0, done.stderr
    assert b"local-1" in done.stdout


def test_nodes_and_completion_of_names(system: System) -> None:
    assert {node["name"] for node in system.json("nodes")["items"]} == {"local-1", "local-2"}
    assert b"online" in system("nodes", "show", "local-2").stdout
    done = system("completion", "--words", "--", "run", "--node", "local")
    assert done.stdout == b"local-1\tonline\nlocal-2\tonline\n"


def test_a_second_up_on_the_same_data_says_so(system: System) -> None:
    done = system("up", "--data", str(system.data), "--port", "0")
    assert done.returncode == 1
    assert b"already runs" in done.stderr
    port = system.told["url"].rpartition(":")[2]
    done = system("up", "--data", str(system.root / "other"), "--port", port)
    assert f"Port {port} is taken by".encode() in done.stderr


def test_no_secret_of_up_is_in_an_argument(system: System) -> None:
    for word in ("server", "agent"):
        with open(f"/proc/{system.child(word)}/cmdline", "rb") as file:
            assert b"fw_" not in file.read()
    assert not list(system.data.glob("agents/*/enrolment-token"))


@pytest.mark.faults
def test_a_killed_server_costs_no_line_and_not_the_exit_code(own_system: System) -> None:
    running = own_system.popen("run", "--node", "local-1", "--", LINES)
    head = running.stdout.read(len(b"line 1\nline 2\nline 3\n"))
    os.kill(own_system.child("server"), signal.SIGKILL)
    tail, err = running.communicate(timeout=60)
    assert head + tail == EXPECTED, err
    assert running.returncode == 7, err
    assert b"The server is away" in err


@pytest.mark.faults
def test_a_killed_agent_costs_no_line_and_not_the_exit_code(own_system: System) -> None:
    running = own_system.popen("run", "--node", "local-1", "--", LINES)
    head = running.stdout.read(7)
    os.kill(own_system.child("agent"), signal.SIGKILL)
    tail, err = running.communicate(timeout=60)
    assert head + tail == EXPECTED, err
    assert running.returncode == 7, err


@pytest.mark.faults
def test_killing_up_makes_its_children_leave_and_the_next_finds_all(own_system: System) -> None:
    before = own_system.json("nodes")["items"][0]["id"]
    run = own_system.json("run", "--node", "local-1", "--", "echo kept")
    children = [own_system.child("server"), own_system.child("agent")]
    own_system.up.kill()
    own_system.up.wait()
    own_system.up.stdout.close()
    killed_at = time.monotonic()
    wait_until(lambda: not any(lives(pid) for pid in children), what="the children leave")
    assert time.monotonic() - killed_at < 3
    own_system.start()
    assert own_system.json("nodes")["items"][0]["id"] == before
    assert own_system("runs", "logs", run["id"]).stdout == b"kept\n"


@pytest.mark.faults
def test_ctrl_c_on_up_stops_what_runs_and_records_it(own_system: System) -> None:
    running = own_system.popen("run", "--node", "local-1", "--", "echo go; sleep 1000")
    assert running.stdout.readline() == b"go\n"
    began = time.monotonic()
    assert own_system.stop(signal.SIGINT) == 0
    assert time.monotonic() - began < 12
    # The watcher waits for the server to come back, and then hears how it ended.
    own_system.start()
    _, err = running.communicate(timeout=60)
    assert running.returncode in {125, 3}, err
    runs = own_system.json("runs")["items"]
    assert [run["outcome"] for run in runs] == ["canceled"]


def lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("words", [("nodes",), ("run", "--node", "local-1", "--", "true")])
def test_a_closed_stream_is_no_fault(system: System, words: tuple[str, ...], number: int) -> None:
    quoted = " ".join([sys.executable, "-m", "fleetwire.cli", *words])
    done = subprocess.run(
        ["/bin/sh", "-c", f"{quoted} {number}>&-"],
        env=system.environ, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("words", [("nodes",), ("--help",), ("runs", "--output", "json")])
def test_a_full_disk_behind_stdout_is_said(system: System, words: tuple[str, ...]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "fleetwire.cli", *words],
            env=system.environ, stdout=full, stderr=subprocess.PIPE, check=False, timeout=60,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(b"fleetwire: Nothing more can be written: No space left")
    assert b"fault of Fleetwire" not in done.stderr
