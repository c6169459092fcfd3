"""Ending a task: nothing of it lives when the record says so (promise P13)."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from fleetwire.shim import control, spool

if TYPE_CHECKING:
    from tests.shim.conftest import Node, Placed

ESCAPEE = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for name in list(os.environ): del os.environ[name]
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.close(1); os.close(2)
        open("escapee", "w").write(str(os.getpid()))
        os.rename("escapee", "escaped")
        os.execve("/bin/sleep", ["sleep", "600"], {})
    os._exit(0)
while not os.path.exists("escaped"): time.sleep(0.002)
print("ready", flush=True)
while True: time.sleep(600)
"""


def escapee(placed: Placed) -> int:
    return int((placed.home / "escaped").read_text())


def test_an_escapee_that_ignores_term_is_killed(node: Node, alive: Callable[[int], bool]) -> None:
    placed = node.python(ESCAPEE)
    placed.start()
    placed.wait_output(b"ready")
    pid = escapee(placed)
    assert alive(pid)
    placed.stop(0.05)
    record = placed.wait()
    assert not alive(pid)
    assert (record["cause"], record["signal"]) == ("stopped", 9)
    placed.check()


@pytest.mark.slow
def test_what_the_first_process_leaves_behind_is_ended(
    node: Node, alive: Callable[[int], bool]
) -> None:
    placed = node.python(ESCAPEE.replace("while True: time.sleep(600)", "sys.exit(5)"))
    record = placed.run()
    assert (record["cause"], record["exit_code"], record["leftovers"]) == ("exited", 5, 1)
    assert not alive(escapee(placed))


@pytest.mark.slow
def test_a_leftover_that_ignores_term_has_two_seconds(node: Node) -> None:
    placed = node.sh("sh -c 'trap \"\" TERM; while :; do sleep 0.05; done' & exit 0")
    record = placed.run()
    assert (record["cause"], record["exit_code"]) == ("exited", 0)
    assert record["leftovers"] >= 1
    assert 2.0 <= record["duration_s"] < 10


def test_a_reader_of_the_last_bytes_may_end_by_itself(node: Node) -> None:
    placed = node.place("/bin/bash", "-c", 'exec > >(while read l; do echo "<$l>"; done); echo x')
    record = placed.run()
    assert record["leftovers"] == 0
    assert placed.log() == b"<x>\n"


def test_a_stopped_process_hears_term(node: Node) -> None:
    placed = node.sh("trap 'echo heard; exit 6' TERM; echo ready; kill -STOP $$; sleep 600")
    placed.start()
    placed.wait_output(b"ready")
    placed.stop(5)
    assert placed.wait()["exit_code"] == 6


def test_a_stop_that_came_before_the_start(node: Node) -> None:
    placed = node.sh("echo never")
    spool.write_record(placed.folder, "stop", {"epoch": 7, "at": 1})
    placed.start()
    assert placed.wait("canceled")["epoch"] == 7
    assert not placed.has("epoch")
    assert placed.log() == b""


def test_a_stop_of_an_older_epoch_stops_nothing(node: Node) -> None:
    placed = node.sh("echo ran")
    spool.write_record(placed.folder, "stop", {"epoch": 6, "at": 1})
    assert placed.run()["exit_code"] == 0


def test_an_exit_recorded_before_the_stop_wins(node: Node, wait_until: Callable[..., Any]) -> None:
    # The leftover keeps the attempt alive for a moment after its first process has ended.
    placed = node.sh("(trap '' TERM; sleep 600) & echo ready; exit 9")
    placed.start()
    placed.wait_output(b"ready")

    def ended() -> bool:
        return placed.ask("status")["ended"]

    wait_until(ended)
    placed.stop(0)
    record = placed.wait()
    assert (record["cause"], record["exit_code"]) == ("exited", 9)
    assert record["duration_s"] < 2
    placed.check()


def test_stop_races_with_exit(node: Node) -> None:
    for i in range(10):
        placed = node.sh("exit 9")
        placed.start()
        with contextlib.suppress(control.ShimGone):
            placed.stop(5)
        record = placed.wait()
        outcome = (record["cause"], record["exit_code"], record["signal"])
        assert outcome in {("exited", 9, None), ("stopped", None, 15), ("stopped", 9, None)}, i
        placed.check()


def test_a_stop_that_finds_nobody_listening_yet_is_found(
    node: Node, wait_until: Callable[..., Any]
) -> None:
    for _ in range(5):
        placed = node.sh("read never < fifo")
        os.mkfifo(placed.home / "fifo")
        placed.start()
        wait_until(lambda has=placed.has: has("epoch"), "epoch")
        spool.write_record(placed.folder, "stop", {"epoch": 7, "at": 1})
        with contextlib.suppress(control.ShimGone):
            control.ask(placed.folder, {"do": "stop", "grace_s": 10})
        assert placed.wait()["cause"] == "stopped"
        placed.check()


def test_a_second_stop_shortens_the_grace_and_never_lengthens_it(node: Node) -> None:
    placed = node.sh("trap '' TERM; echo ready; while :; do sleep 0.02; done")
    placed.start()
    placed.wait_output(b"ready")
    placed.stop(600)
    assert placed.ask("status")["cause"] == "stopped"
    placed.stop(0.05)
    placed.stop(600)
    record = placed.wait()
    assert (record["cause"], record["signal"]) == ("stopped", 9)
    assert record["duration_s"] < 20


def test_stop_without_a_grace_takes_the_orders(node: Node) -> None:
    placed = node.sh("trap '' TERM; echo ready; while :; do sleep 0.02; done", grace_s=0.05)
    placed.start()
    placed.wait_output(b"ready")
    assert placed.ask("stop")["ok"]
    assert placed.wait()["signal"] == 9


HOPPER = """
import os
print("ready", flush=True)
while True:  # the parent of each generation ends: it is never where it was seen
    if os.fork():
        os._exit(0)
    os.setsid()
"""


@pytest.mark.faults  # it starves what runs beside it, and so do the shim's means against it
@pytest.mark.slow
def test_a_process_that_hops_from_pid_to_pid_is_caught(node: Node) -> None:
    placed = node.python(HOPPER)
    placed.start()
    placed.wait_output(b"ready")
    placed.wait()
    placed.check()


BOMB = """
import os, time
most = len(os.listdir("/proc")) + 100  # however many others run here
print("ready", flush=True)
while True:
    if len(os.listdir("/proc")) > most: time.sleep(0.01); continue
    if os.fork() == 0: os.setsid()
"""


@pytest.mark.faults  # as above
@pytest.mark.slow
def test_a_fork_bomb_of_sessions_loses(
    node: Node, wait_until: Callable[..., Any], marked: Callable[[str], list[int]]
) -> None:
    placed = node.python(BOMB)
    placed.start()
    placed.wait_output(b"ready")
    wait_until(lambda: len(marked(placed.attempt)) > 60)
    placed.stop(0)
    record = placed.wait()
    assert record["cause"] == "stopped"
    placed.check()


def test_a_thread_leader_that_left_is_still_alive(node: Node) -> None:
    placed = node.python(
        """
import ctypes, os, threading, time
def stay():
    time.sleep(0.1)
    print("threads go on", flush=True)
    time.sleep(600)
if os.fork() == 0:
    threading.Thread(target=stay).start()
    ctypes.CDLL(None).syscall(60, 0)  # exit of this thread alone
time.sleep(600)
"""
    )
    placed.start()
    placed.wait_output(b"threads go on")
    placed.stop(0)
    placed.wait()
    placed.check()


def test_signals_reach_only_the_tree(node: Node) -> None:
    bystander = os.posix_spawn("/bin/sleep", ["sleep", "600"], {})
    try:
        placed = node.sh("echo ready; sleep 600")
        placed.start()
        placed.wait_output(b"ready")
        placed.stop(0)
        placed.wait()
        assert os.waitpid(bystander, os.WNOHANG) == (0, 0)
    finally:
        os.kill(bystander, signal.SIGKILL)
        os.waitpid(bystander, 0)
