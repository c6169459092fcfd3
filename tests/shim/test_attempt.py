"""Real processes through a real shim: what ends how, and what is recorded."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fleetwire.shim import attempt, spool, tree

if TYPE_CHECKING:
    from tests.shim.conftest import Node


def test_records_of_a_plain_run(node: Node) -> None:
    before = time.time_ns() // 1000
    placed = node.sh("echo out; echo err >&2; exit 3")
    record = placed.run()

    assert (record["cause"], record["exit_code"], record["signal"]) == ("exited", 3, None)
    assert record["epoch"] == 7
    assert record["leftovers"] == 0
    assert record["error"] is None
    assert before <= record["started_at"] <= record["at"] <= time.time_ns() // 1000
    assert 0 < record["duration_s"] < 30
    assert placed.log(1) == b"out\n"
    assert placed.log(2) == b"err\n"
    assert placed.record("epoch")["epoch"] == 7
    assert {
        oct(Path(placed.folder, name).stat().st_mode & 0o777) for name in ("exit", "epoch")
    } == {"0o600"}


def test_records_of_a_task_that_lasts(node: Node) -> None:
    placed = node.sh("echo $$; read never < fifo")
    os.mkfifo(placed.home / "fifo")
    before = time.time_ns() // 1000
    placed.start()
    placed.wait_started()
    epoch, started = placed.record("epoch"), placed.record("started")
    assert epoch["boot_id"] == started["boot_id"]
    placed.wait_output(f"{started['pid']}\n".encode())
    assert started["pid_start"] == tree.start_time(started["pid"])
    assert started["shim"] == placed.shim
    (placed.home / "fifo").write_text("go\n")
    assert before <= started["at"] == placed.wait()["started_at"]
    placed.check()


def test_a_task_that_is_over_at_once_costs_few_files(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "LASTING_S", 600.0)  # however slow this machine is just now
    node.fork_spawner()
    placed = node.sh("true")
    placed.run()
    assert sorted(os.listdir(placed.folder)) == ["epoch", "exit", "order"]
    assert os.path.samefile(f"{placed.folder}/epoch", f"{placed.folder}/order")


def test_an_order_that_names_another_boot_or_none_is_not_its_epoch(node: Node) -> None:
    for boot in ("another", ""):
        placed = node.sh("true", boot_id=boot)
        placed.run()
        assert placed.record("epoch")["boot_id"] == tree.boot_id()
        assert placed.record("epoch")["pid"] == placed.shim


@pytest.mark.parametrize("number", [1, 9, 11, 15])
def test_a_signal_is_told_as_a_signal(node: Node, number: int) -> None:
    record = node.sh(f"kill -{number} $$").run()
    assert (record["cause"], record["exit_code"], record["signal"]) == ("exited", None, number)


def test_a_program_that_is_not_there(node: Node) -> None:
    record = node.place("/no/such/program").run()
    assert (record["cause"], record["exit_code"]) == ("exited", 127)
    assert "/no/such/program" in record["error"]


def test_a_name_that_is_not_in_the_tasks_path(node: Node) -> None:
    record = node.place("sh", "-c", "true", env={"PATH": "/nowhere::/also/not"}).run()
    assert record["exit_code"] == 127


def test_a_name_is_looked_up_in_the_tasks_path(node: Node) -> None:
    placed = node.place("mine", env={"PATH": ":/bin"})
    program = placed.home / "mine"
    program.write_text("#!/bin/sh\necho found\n")
    program.chmod(0o755)
    assert placed.run()["exit_code"] == 0
    assert placed.log() == b"found\n"


def test_a_file_that_may_not_be_executed(node: Node, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("no program")
    record = node.place(str(tmp_path / "data")).run()
    assert record["exit_code"] == 126
    assert "data" in record["error"]


def test_an_interpreter_that_is_not_there(node: Node, tmp_path: Path) -> None:
    (tmp_path / "script").write_text("#!/no/such/interpreter\n")
    (tmp_path / "script").chmod(0o755)
    assert node.place(str(tmp_path / "script")).run()["exit_code"] == 127


def test_the_environment_is_the_orders_and_nothing_else(node: Node) -> None:
    placed = node.python(
        "import os; print(sorted(os.environ.items()))",
        env={"GREETING": "grüß Gott", "LC_ALL": "C.UTF-8"},
    )
    placed.run()
    expected = sorted(
        [
            ("FLEETWIRE_ATTEMPT", placed.attempt),
            ("GREETING", "grüß Gott"),
            ("LC_ALL", "C.UTF-8"),
            ("PATH", os.defpath),
        ]
    )
    assert placed.log().decode() == f"{expected}\n"


LOOK_AROUND = """
import os, signal, sys
fds = {}
for name in os.listdir("/proc/self/fd"):
    try:
        fds[int(name)] = os.readlink("/proc/self/fd/" + name)
    except FileNotFoundError:
        pass
mask = os.umask(0)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(sorted(fds), fds[0], oct(mask), os.getcwd())
ignored = int(status["SigIgn"], 16)
ignored = {i for i in range(1, 65) if ignored >> (i - 1) & 1}
ignored -= {13, 25}  # which Python itself ignores
ignored -= {32, 33}  # which the C library keeps for itself, and nobody can set
print(len(ignored), int(status["SigBlk"], 16))
print(os.getsid(0) == os.getpgid(0) == os.getpid())
"""


def test_what_a_task_inherits(node: Node) -> None:
    placed = node.python(LOOK_AROUND)
    placed.run()
    fds, signals, session = placed.log().decode().splitlines()
    assert fds == f"[0, 1, 2] /dev/null 0o22 {placed.home}"
    assert signals == "0 0"
    assert session == "True"


def test_sigpipe_ends_a_pipeline_as_it_should(node: Node) -> None:
    placed = node.sh("yes | head -1; exec 2>&-; exit 0")
    assert placed.run()["exit_code"] == 0
    assert placed.log() == b"y\n"


def test_both_streams_bytes_of_all_kinds_and_no_final_newline(node: Node) -> None:
    placed = node.python(
        """
import os
data = bytes(range(256)) * 64
for i in range(50):
    os.write(1 + i % 2, data[i:])
os.write(1, b"no newline")
"""
    )
    placed.run()
    data = bytes(range(256)) * 64
    assert placed.log(1) == b"".join(data[i:] for i in range(0, 50, 2)) + b"no newline"
    assert placed.log(2) == b"".join(data[i:] for i in range(1, 50, 2))


@pytest.mark.slow
def test_streams_keep_their_order_when_there_is_time_to_read(node: Node) -> None:
    placed = node.sh("for i in 1 2 3 4 5; do echo o$i; sleep 0.02; echo e$i >&2; sleep 0.02; done")
    placed.run()
    assert placed.log() == b"".join(b"o%d\ne%d\n" % (i, i) for i in range(1, 6))
    times = [frame.time_us for frame in placed.frames()]
    assert times == sorted(times)


@pytest.mark.slow
def test_a_line_of_ten_megabytes(node: Node) -> None:
    placed = node.python(
        "import sys\nfor i in range(10): sys.stdout.write(chr(65 + i) * 1000000)", piece=1 << 20
    )
    record = placed.run()
    assert record["length"] == 10_000_000
    assert placed.log() == b"".join(bytes([65 + i]) * 1_000_000 for i in range(10))
    assert len(spool.pieces(placed.folder)) > 5


@pytest.mark.slow
def test_two_hundred_megabytes(node: Node) -> None:
    placed = node.python(
        """
import hashlib, os
block = os.urandom(1 << 20); digest = hashlib.sha256()
for i in range(200):
    digest.update(block); view = memoryview(block)
    while view: view = view[os.write(1, view):]
open("digest", "w").write(digest.hexdigest())
"""
    )
    record = placed.run()
    assert record["length"] == 200 << 20
    assert record["sha256"] == (placed.home / "digest").read_text()


def test_a_silent_line_reaches_the_file_at_once(node: Node) -> None:
    placed = node.sh("echo first; read never < fifo")
    os.mkfifo(placed.home / "fifo")
    placed.start()
    placed.wait_output(b"first\n")
    assert not placed.has("exit")


def test_lines_written_one_by_one_are_gathered(node: Node) -> None:
    placed = node.python("import os\nfor i in range(20000): os.write(1, b'%d\\n' % i)")
    placed.run()
    assert placed.log() == b"".join(b"%d\n" % i for i in range(20000))
    assert len(placed.frames()) < 4000


def test_the_deadline_strikes(node: Node) -> None:
    record = node.sh("exec sleep 600", deadline_s=0.05).run()
    assert (record["cause"], record["signal"]) == ("deadline", 15)


@pytest.mark.slow
def test_the_deadline_strikes_while_nobody_is_connected(node: Node) -> None:
    placed = node.sh("trap '' TERM; while :; do sleep 0.02; done", deadline_s=0.1, grace_s=0.05)
    placed.start()
    node.disconnect()
    record = placed.wait()
    assert (record["cause"], record["signal"]) == ("deadline", 9)
    placed.check()


@pytest.mark.slow
def test_a_task_may_use_its_grace_to_end_well(node: Node) -> None:
    placed = node.sh(
        "trap 'echo bye; exit 4' TERM; echo ready; while :; do sleep 0.01; done", deadline_s=0.2
    )
    record = placed.run()
    assert (record["cause"], record["exit_code"]) == ("deadline", 4)
    assert placed.log(1) == b"ready\nbye\n"


def test_a_bad_order_is_a_start_that_failed(node: Node) -> None:
    for change, word in [
        ({"argv": []}, "argv"),
        ({"quota_policy": "pray"}, "quota_policy"),
        ({"deadline_s": "soon"}, "soon"),
        ({"env": None}, "env"),
    ]:
        placed = node.sh("true", **({} if "env" in change else change))
        if "env" in change:
            order = placed.record("order")
            del order["env"]
            spool.write_record(placed.folder, "order", order)
        placed.start()
        lost = placed.wait("lost")
        assert lost["reason"].startswith("start failed: ")
        assert word in lost["reason"]
        assert not placed.has("epoch")


def test_a_working_directory_that_is_not_there(node: Node) -> None:
    placed = node.sh("true", cwd="/no/such/folder")
    placed.start()
    assert "/no/such/folder" in placed.wait("lost")["reason"]


def test_an_argv_larger_than_the_kernel_takes(node: Node) -> None:
    placed = node.place("/bin/true", *["x" * 100_000] * 40)
    record = placed.run()
    assert record["exit_code"] == 126
    assert "too long" in record["error"]


@pytest.mark.slow
def test_attempts_share_a_process_one_after_the_other_without_a_trace(node: Node) -> None:
    pids = set()
    for i in range(12):
        placed = node.python(LOOK_AROUND, env={"NUMBER": str(i)})
        pids.add(placed.start())
        placed.wait()
        placed.check()
        assert placed.log().decode().splitlines()[0] == f"[0, 1, 2] /dev/null 0o22 {placed.home}"
    assert len(pids) < 12


@pytest.mark.slow
def test_many_at_once(node: Node) -> None:
    placed = [node.sh(f"echo {i}; exit {i}") for i in range(40)]
    for each in placed:
        each.start()
    for i, each in enumerate(placed):
        assert each.wait()["exit_code"] == i
        assert each.log() == b"%d\n" % i
        each.check()


def test_a_path_longer_than_a_socket_address(
    tmp_path: Path, make_node: Callable[[Path], Node]
) -> None:
    deep = tmp_path
    while len(str(deep)) < 150:
        deep /= "a-rather-long-name"
    deep.mkdir(parents=True)
    node = make_node(deep / "state")
    placed = node.sh("echo deep; read never < fifo")
    os.mkfifo(placed.home / "fifo")
    placed.start()
    placed.wait_output(b"deep\n")
    placed.stop(0)
    assert placed.wait()["cause"] == "stopped"


def test_digest_of_nothing(node: Node) -> None:
    assert node.sh("true").run()["sha256"] == hashlib.sha256().hexdigest()


def test_this_interpreter_is_the_floor_or_above() -> None:
    assert sys.version_info >= (3, 11)
