"""The spawner: one start per attempt, and what becomes of the living when one of us is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fleetwire.shim import records, spawner, spool, tree

if TYPE_CHECKING:
    from tests.shim.conftest import Node, Placed


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


LEDGER = "echo started >> ledger; echo ready; read never < fifo; exit 8"


@pytest.fixture
def waiting(node: Node) -> None:
    """A task that has told the ledger of its start, and waits to be let go."""
    placed = node.sh(LEDGER)
    os.mkfifo(placed.home / "fifo")
    placed.start()
    placed.wait_output(b"ready\n")
    placed.wait_started()
    return placed


def let_go(placed: Placed) -> None:
    (placed.home / "fifo").write_text("go\n")


def starts(placed: Placed) -> int:
    return (placed.home / "ledger").read_text().count("started")


def test_two_starts_of_one_attempt_start_it_once(waiting: Placed, node: Node) -> None:
    pid = waiting.start()
    assert pid != waiting.shim
    assert node.sh("true").run()["exit_code"] == 0
    let_go(waiting)
    assert waiting.wait()["exit_code"] == 8
    waiting.start()
    assert node.sh("true").run()["exit_code"] == 0
    assert starts(waiting) == 1
    waiting.check()


def test_many_starts_at_once_start_it_once(node: Node) -> None:
    placed = node.sh("echo started >> ledger; exit 8")
    request = json.dumps({"do": "start", "attempt": placed.attempt}).encode() + b"\n"
    node.connection.sendall(request * 5)
    answers = node.connection.makefile("rb")
    for _ in range(5):
        assert json.loads(answers.readline())["ok"]
    assert placed.wait()["exit_code"] == 8
    assert node.sh("true").run()["exit_code"] == 0
    assert starts(placed) == 1


def test_a_killed_spawner_takes_nobody_along(
    waiting: Placed, node: Node, wait_until: Callable[..., Any], alive: Callable[[int], bool]
) -> None:
    pid = node.spawner_pid()
    kill(pid)
    wait_until(lambda: not alive(pid))
    node.disconnect()
    assert waiting.ask("status")["ok"]
    assert spool.is_locked(waiting.folder)
    assert spawner.bury(waiting.folder) is None
    let_go(waiting)
    assert waiting.wait()["exit_code"] == 8
    waiting.check()
    assert node.sh("exit 2").run()["exit_code"] == 2  # through another spawner
    assert node.spawner_pid() != pid
    assert starts(waiting) == 1


@pytest.mark.slow
def test_a_killed_shim_takes_its_whole_tree_along(node: Node, alive: Callable[[int], bool]) -> None:
    placed = node.python(
        """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: os.execve("/bin/sleep", ["sleep", "600"], {})
    os._exit(0)
os.wait()
children = open(f"/proc/{os.getppid()}/task/{os.getppid()}/children").read().split()
open("tree", "w").write(" ".join(children))
print("ready", flush=True)
time.sleep(600)
"""
    )
    shim = placed.start()
    placed.wait_output(b"ready")
    pids = [int(pid) for pid in (placed.home / "tree").read_text().split()]
    assert len(pids) == 2
    assert all(map(alive, pids))
    kill(shim)
    assert placed.wait("lost")["reason"] == "shim died"
    assert not any(map(alive, pids))
    assert b"ready\n" in placed.log()
    assert node.sh("exit 2").run()["exit_code"] == 2


def test_a_killed_shim_does_not_hurt_its_neighbours(waiting: Placed, node: Node) -> None:
    others = [node.sh("sleep 600") for _ in range(3)]
    pids = [other.start() for other in others]
    for other in others:
        other.wait_started()
    kill(pids[1])
    assert others[1].wait("lost")["reason"] == "shim died"
    assert waiting.ask("status")["ok"]
    assert others[0].ask("status")["ok"]
    let_go(waiting)
    assert waiting.wait()["exit_code"] == 8


def test_a_spare_shim_that_was_killed_is_missed_by_nobody(
    node: Node, wait_until: Callable[..., Any], alive: Callable[[int], bool]
) -> None:
    first = node.sh("true")
    pid = first.start()
    first.wait()
    wait_until(lambda: not spool.is_locked(first.folder))
    kill(pid)
    wait_until(lambda: not alive(pid))
    assert node.sh("exit 2").run()["exit_code"] == 2
    assert not first.has("lost")


def test_a_shim_takes_nothing_of_an_attempt_into_the_next_one(
    node: Node, wait_until: Callable[..., Any]
) -> None:
    def held(pid: int) -> set[str]:
        # Without the numbers of sockets and pipes: what it is, not which.
        fds = Path(f"/proc/{pid}/fd")
        return {f"{fd.name} {os.readlink(fd).partition('[')[0]}" for fd in fds.iterdir()}

    def is_spare() -> bool:
        node.connection.sendall(b'{"do": "ping"}\n')
        living: int = json.loads(node.connection.recv(4096))["living"]
        return living == 0

    first = node.sh("true")
    pid = first.start()
    first.wait()
    wait_until(is_spare)
    before = held(pid), os.readlink(f"/proc/{pid}/cwd")
    for each in (
        node.sh("echo out; echo err >&2; (sleep 600 &) ; exit 3"),
        node.sh("echo on a terminal", tty={"rows": 24, "cols": 80}, stdin="control"),
        node.sh("read never", stdin="control", deadline_s=0.05),
        node.place("no-such-program"),
        node.sh("head -c 3000000 /dev/zero"),
    ):
        assert each.start() == pid
        each.wait()
        wait_until(is_spare)
        assert (held(pid), os.readlink(f"/proc/{pid}/cwd")) == before
        assert Path(f"/proc/{pid}/task/{pid}/children").read_text() == ""


@pytest.mark.slow
def test_shim_and_spawner_killed_then_buried_by_the_agent(
    node: Node, wait_until: Callable[..., Any], alive: Callable[[int], bool]
) -> None:
    placed = node.sh("echo ready; trap '' TERM; while :; do sleep 0.05; done")
    shim = placed.start()
    placed.wait_output(b"ready")
    placed.wait_started()
    pid = placed.record("started")["pid"]
    kill(node.spawner_pid())
    kill(shim)
    wait_until(lambda: not spool.is_locked(placed.folder))
    node.disconnect()
    assert alive(pid)
    assert spawner.bury(placed.folder) == "shim died"
    assert not alive(pid)
    assert placed.record("lost")["reason"] == "shim died"
    assert spawner.bury(placed.folder) is None
    placed.start()
    assert node.sh("true").run()["exit_code"] == 0
    assert not placed.has("exit")


def test_an_epoch_without_a_start_is_never_started(node: Node) -> None:
    # As a crash between the fsync of `epoch` and exec leaves it.
    placed = node.sh("echo started >> ledger")
    spool.write_record(placed.folder, "epoch", {"epoch": 7, "boot_id": boot_id(), "pid": 1})
    placed.start()
    assert placed.wait("lost")["reason"] == "start unknown"
    assert not (placed.home / "ledger").exists()


def test_an_empty_epoch_counts_as_one(node: Node) -> None:
    placed = node.sh("echo started >> ledger")
    Path(placed.folder, "epoch").touch()
    spool.write_record(placed.folder, "stop", {"epoch": 7, "at": 1})
    placed.start()
    assert placed.wait("lost")["reason"] == "start unknown"
    assert not (placed.home / "ledger").exists()


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_burial_after_a_reboot(node: Node) -> None:
    placed = node.sh("true")
    assert spawner.bury(placed.folder) is None  # it never began: it may start
    before = {"boot_id": "another", "pid": os.getpid(), "pid_start": 1}
    spool.write_record(placed.folder, "epoch", {"epoch": 7, **before})
    spool.write_record(placed.folder, "started", before)
    assert spawner.bury(placed.folder) == "node rebooted"
    assert placed.record("lost")["reason"] == "node rebooted"


def test_what_had_started_and_not_lasted_yet_is_known(
    node: Node, alive: Callable[[int], bool]
) -> None:
    placed = node.sh("true")
    # A session of its own and no marker: only the word in the reserve leads to it.
    pid = os.posix_spawn("/bin/sleep", ["sleep", "600"], {}, setsid=True)
    mine = {"boot_id": boot_id(), "pid": pid, "pid_start": tree.start_time(pid)}
    directory = os.open(placed.folder, os.O_RDONLY)
    records.set_reserve_aside(directory)
    assert records.create_record_at(directory, "epoch", {"epoch": 7, **mine})
    assert records.read_started(placed.folder) is None
    records.note_in_reserve(directory, mine)
    os.close(directory)
    assert spawner.bury(placed.folder) == "shim died"
    assert not alive(pid)
    os.waitpid(pid, 0)
    assert placed.record("lost")["reason"] == "shim died"


@pytest.mark.parametrize("boot", ["this", "an earlier one"])
def test_an_end_that_had_no_name_yet_is_no_loss(node: Node, boot: str) -> None:
    placed = node.sh("true")
    before = {"boot_id": boot_id() if boot == "this" else boot, "pid": 1 << 22, "pid_start": 1}
    spool.write_record(placed.folder, "epoch", {"epoch": 7, **before})
    spool.write_record(placed.folder, "started", before)
    # The record was durable, and then its shim was killed or the power went.
    end = {"epoch": 7, "cause": "exited", "exit_code": 3}
    spool.write_record(placed.folder, "reserve", end)
    assert spawner.bury(placed.folder) is None
    assert spool.read_record(placed.folder, "exit") == end
    assert spool.read_record(placed.folder, "lost") is None


def test_burial_spares_whoever_has_the_pid_now(node: Node) -> None:
    placed = node.sh("true")
    bystander = os.posix_spawn("/bin/sleep", ["sleep", "600"], {}, setsid=True)
    try:
        mine = {"boot_id": boot_id(), "pid": bystander, "pid_start": 1}
        spool.write_record(placed.folder, "epoch", {"epoch": 7, **mine})
        spool.write_record(placed.folder, "started", mine)
        assert spawner.bury(placed.folder) == "shim died"
        assert os.waitpid(bystander, os.WNOHANG) == (0, 0)
    finally:
        kill(bystander)
        os.waitpid(bystander, 0)


def test_burial_finds_the_marked_and_their_children(
    node: Node, alive: Callable[[int], bool], wait_until: Callable[..., Any]
) -> None:
    placed = node.sh("true")
    spool.write_record(placed.folder, "epoch", {"epoch": 7, "boot_id": boot_id()})
    env = {"FLEETWIRE_ATTEMPT": placed.attempt, "PATH": os.defpath}
    script = "import os\nif not os.fork(): os.execve('/bin/sleep', ['sleep', '600'], {})\nos.wait()"
    command = [sys.executable, "-S", "-c", script]
    with subprocess.Popen(command, env=env, start_new_session=True) as process:
        path = f"/proc/{process.pid}/task/{process.pid}/children"
        child = int(wait_until(lambda: Path(path).read_text().split())[0])
        wait_until(lambda: Path(f"/proc/{child}/environ").read_bytes() == b"")
        assert spawner.bury(placed.folder) == "start unknown"
        assert process.wait() == -9
        assert not alive(child)


@pytest.mark.parametrize("attempt", ["", "..", "a/b", "no-such-attempt", "x" * 300, "ü"])
def test_an_attempt_without_a_folder(node: Node, attempt: str) -> None:
    with pytest.raises(spawner.SpawnerError, match="has no folder"):
        spawner.start(node.connection, attempt)


def test_bad_requests(node: Node) -> None:
    stream = node.connection.makefile("rwb")
    for line in (b'{"do": "dance"}\n', b"what\n", b'{"do": "start"}\n'):
        stream.write(line)
        stream.flush()
        assert not json.loads(stream.readline())["ok"]


def test_ensure_finds_the_one_that_is_there(node: Node) -> None:
    assert node.connection
    with spawner.ensure(str(node.state)) as second:
        second.sendall(b'{"do": "ping"}\n')
        assert json.loads(second.recv(100))["pid"] == node.spawner_pid()


def test_a_second_spawner_leaves_it_to_the_first(node: Node) -> None:
    assert node.connection
    pid = node.spawner_pid()
    command = [sys.executable, "-m", "fleetwire.shim", str(node.state)]
    assert subprocess.run(command, check=False, env=environment()).returncode == 0
    assert node.spawner_pid() == pid


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_usage() -> None:
    command = [sys.executable, "-m", "fleetwire.shim"]
    done = subprocess.run(command, check=False, env=environment(), capture_output=True, text=True)
    assert done.returncode == 2
    assert "STATE_DIR" in done.stderr


def test_a_state_directory_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        spawner.ensure(str(tmp_path / "file"))


def test_a_spawner_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("in the way")
    with pytest.raises(spawner.SpawnerError, match="spool"):
        spawner.ensure(str(tmp_path))


@pytest.mark.slow
def test_the_spawner_leaves_when_nobody_needs_it(
    waiting: Placed, node: Node, alive: Callable[[int], bool], wait_until: Callable[..., Any]
) -> None:
    pid = node.spawner_pid()
    node.disconnect()
    let_go(waiting)
    waiting.wait()
    wait_until(lambda: not alive(pid))
    assert not spool.is_locked(str(node.state / "spool"))
    assert node.sh("exit 2").run()["exit_code"] == 2


def test_a_spawner_that_went_is_told(
    node: Node, alive: Callable[[int], bool], wait_until: Callable[..., Any]
) -> None:
    connection = node.connection
    connection.sendall(b'{"do": "leave"}\n')
    pid = node.spawner_pid()
    wait_until(lambda: not alive(pid))
    with pytest.raises(ConnectionError):
        spawner.start(connection, "x")
    node.disconnect()


def test_an_interrupted_service_records_how_its_tasks_ended(waiting: Placed, node: Node) -> None:
    # What a service manager does: TERM for everyone at once.
    for pid in (
        node.spawner_pid(),
        waiting.shim,
        waiting.record("started")["pid"],
    ):
        os.kill(pid, signal.SIGTERM)
    record = waiting.wait()
    assert (record["cause"], record["signal"]) == ("exited", 15)
    waiting.check()


def test_the_agents_end_is_seen_though_shims_live(waiting: Placed) -> None:
    # A shim that kept the agent's connection open would hide the agent's death.
    shim = waiting.shim
    links = [os.readlink(f"/proc/{shim}/fd/{fd}") for fd in os.listdir(f"/proc/{shim}/fd")]
    assert sum("socket:" in link for link in links) == 2  # its line and its control socket
