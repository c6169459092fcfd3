"""The control socket: what a shim answers, and what it does not let happen to it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fleetwire.shim import control

if TYPE_CHECKING:
    from tests.shim.conftest import Node, Placed


@pytest.fixture
def placed(node: Node) -> None:
    """A task that waits until its input ends, and says what it read."""
    placed = node.sh("echo ready; cat; echo over; read never < fifo", stdin="control")
    os.mkfifo(placed.home / "fifo")
    placed.start()
    placed.wait_output(b"ready\n")
    placed.wait_started()  # and listens
    return placed


def talk(placed: Placed, data: bytes) -> dict[str, Any]:
    with control.connect(placed.folder) as connection:
        connection.sendall(data)
        return json.loads(connection.makefile("rb").readline())


def test_status(placed: Placed) -> None:
    answer = placed.ask("status")
    assert answer["ok"]
    assert answer["pid"] == placed.record("started")["pid"]
    assert answer["length"] == len(b"ready\n")
    assert not answer["ended"]
    assert answer["cause"] is None


def give(placed: Placed, data: bytes) -> dict[str, Any]:
    return placed.ask("input", bytes=base64.b64encode(data).decode())


def test_input_and_its_end(placed: Placed) -> None:
    assert give(placed, b"one\n")["ok"]
    placed.wait_output(b"one\n")
    assert give(placed, b"two")["ok"]
    assert placed.ask("eof")["ok"]
    placed.wait_output(b"twoover\n")
    for answer in (give(placed, b"three"), placed.ask("eof")):
        assert not answer["ok"]
        assert "takes no input" in answer["error"]
    placed.stop(0)
    assert placed.wait()["cause"] == "stopped"
    placed.check()


def test_input_that_is_not_read_is_refused_at_last(
    node: Node, wait_until: Callable[..., Any]
) -> None:
    placed = node.sh("read never < fifo; cat | wc -c", stdin="control")
    os.mkfifo(placed.home / "fifo")
    placed.start()
    wait_until(lambda: placed.has("started"))
    piece = b"x" * 500_000
    taken = 0
    while (answer := give(placed, piece))["ok"]:
        taken += len(piece)
        assert taken <= 2_000_000
    assert "does not read" in answer["error"]
    assert placed.ask("eof")["ok"]
    (placed.home / "fifo").write_text("go\n")
    placed.wait()
    assert int(placed.log()) == taken


def test_input_for_who_closed_it_is_thrown_away(node: Node) -> None:
    placed = node.sh("exec <&-; echo closed; read never < fifo", stdin="control")
    os.mkfifo(placed.home / "fifo")
    placed.start()
    placed.wait_output(b"closed\n")
    assert give(placed, b"unheard")["ok"]
    assert not give(placed, b"unheard")["ok"]
    placed.stop(0)
    placed.wait()


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (b"no json\n", "understood"),
        (b"[]\n", "understood"),
        (b"{}\n", "unknown request"),
        (b'{"do": "dance"}\n', "dance"),
        (b'{"do": "input"}\n', "'bytes' is missing"),
        (b'{"do": "input", "bytes": "!"}\n', "understood"),
        (b'{"do": "input", "bytes": 5}\n', "understood"),
        (b'{"do": "quota", "bytes": null}\n', "understood"),
        (b'{"do": "stop", "grace_s": "long"}\n', "understood"),
        (b'{"do": "resize", "rows": 1, "cols": 2}\n', "no terminal"),
        (b"\xff\xfe\n", "understood"),
    ],
)
def test_a_bad_request_gets_an_answer_and_harms_nothing(
    placed: Placed, line: bytes, word: str
) -> None:
    answer = talk(placed, line)
    assert not answer["ok"]
    assert word in answer["error"]
    assert placed.ask("status")["ok"]


def test_many_requests_on_one_connection(placed: Placed) -> None:
    with control.connect(placed.folder) as connection:
        connection.sendall(b'{"do": "status"}\n' * 20 + b'{"do": ')
        lines = connection.makefile("rb")
        for _ in range(20):
            assert json.loads(lines.readline())["ok"]
        connection.sendall(b'"status"}\n')
        assert json.loads(lines.readline())["ok"]


def test_a_line_without_an_end_is_cut_off(placed: Placed) -> None:
    with control.connect(placed.folder) as connection, pytest.raises(ConnectionError):
        connection.sendall(b"x" * (control.LONGEST_LINE * 4))
    assert placed.ask("status")["ok"]


def test_a_longest_line_is_taken(placed: Placed) -> None:
    filler = "x" * (control.LONGEST_LINE - 40)
    assert placed.ask("status", filler=filler)["ok"]


def test_who_does_not_read_the_answers_is_dropped(placed: Placed) -> None:
    with control.connect(placed.folder) as connection:
        connection.setblocking(False)
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while True:
                connection.send(b'{"do": "status"}\n' * 1000)
        assert placed.ask("status")["ok"]


def test_nobody_listens_in_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(control.ShimGone):
        control.ask(str(tmp_path), {"do": "status"})


def test_a_shim_that_ends_before_it_answers(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    with control.listen(directory, str(tmp_path), control.NAME) as listener:
        listener.setblocking(True)
        listener.settimeout(10)
        import threading  # noqa: PLC0415

        def hang_up() -> None:
            listener.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(control.ShimGone, match="before it answered"):
            control.ask(str(tmp_path), {"do": "status"})
        thread.join()
    # A socket file left by the dead is replaced.
    control.listen(directory, str(tmp_path), control.NAME).close()
    os.close(directory)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(control.ShimGone):
        control.connect(str(tmp_path / "gone"))
    with pytest.raises(NotADirectoryError):
        control.connect("/dev/null")
    directory = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(FileNotFoundError):
        control.listen(directory, str(tmp_path), "no/such")
    os.close(directory)
