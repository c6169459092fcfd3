"""Attempts with a terminal."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.shim.conftest import Node


SIZE = {"rows": 30, "cols": 100}


def test_a_task_with_a_terminal(node: Node) -> None:
    placed = node.python(
        """
import os, sys
print([os.isatty(fd) for fd in (0, 1, 2)], os.get_terminal_size(1))
os.write(os.open("/dev/tty", os.O_WRONLY), b"controlling\\n")
print(sorted(int(fd) for fd in os.listdir("/proc/self/fd"))[:4], file=sys.stderr)
print(os.getsid(0) == os.getpid() == os.tcgetpgrp(0))
""",
        tty=SIZE,
    )
    assert placed.run()["exit_code"] == 0
    text = placed.log(1).decode().replace("\r\n", "\n")
    assert text.startswith("[True, True, True] os.terminal_size(columns=100, lines=30)\n")
    assert "controlling\n" in text
    assert text.endswith("True\n")
    assert placed.log(2) == b""


def test_a_resize_is_heard(node: Node) -> None:
    placed = node.python(
        """
import os, signal
def heard(*_):
    size = os.get_terminal_size(1)
    os.write(1, b"%d %d" % (size.lines, size.columns))
    os._exit(0)
signal.signal(signal.SIGWINCH, heard)
print("ready", flush=True)
while True: signal.pause()
""",
        tty=SIZE,
    )
    placed.start()
    placed.wait_output(b"ready")
    assert not placed.ask("resize", rows=-1, cols=120)["ok"]
    assert placed.ask("resize", rows=40, cols=120)["ok"]
    placed.wait()
    assert b"40 120" in placed.log()


def test_typing_and_the_end_of_input(node: Node) -> None:
    placed = node.sh(
        'echo ready; read line; echo "<$line>"; cat; echo over', tty=SIZE, stdin="control"
    )
    placed.start()
    placed.wait_output(b"ready")
    assert placed.ask("input", bytes=base64.b64encode(b"hello\n").decode())["ok"]
    placed.wait_output(b"<hello>")
    assert placed.ask("eof")["ok"]
    assert placed.wait()["exit_code"] == 0
    assert placed.log().endswith(b"over\r\n")
    placed.check()


def test_a_terminal_nobody_may_type_into(node: Node) -> None:
    placed = node.sh("echo ready; sleep 600", tty=SIZE)
    placed.start()
    placed.wait_output(b"ready")
    assert not placed.ask("input", bytes="aGk=")["ok"]
    assert not placed.ask("eof")["ok"]
    placed.stop(0)
    assert placed.wait()["signal"] in {9, 15}
    placed.check()


def test_an_interpreter_that_is_not_there(node: Node) -> None:
    assert node.place("/no/such", tty=SIZE, stdin="control").run()["exit_code"] == 127


def test_much_output_through_a_terminal(node: Node) -> None:
    placed = node.sh(
        "stty -opost; i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done", tty=SIZE
    )
    placed.run()
    assert placed.log() == b"".join(b"line %d\n" % i for i in range(3000))
