from __future__ import annotations

import os
import pty
import threading

from fleetwire.cli.screen import Screen, write_all


def drain(descriptor: int) -> bytes:
    data = b""
    while True:
        try:
            block = os.read(descriptor, 65536)
        except OSError:  # a pty's other end is closed
            return data
        if not block:
            return data
        data += block


def test_streams_stay_apart_in_pipes_and_nothing_else_is_written() -> None:
    out_read, out = os.pipe()
    err_read, err = os.pipe()
    with Screen(out, err) as screen:
        screen.write("stdout", b"one\n")
        screen.write("stderr", b"two")
        screen.write("stdout", b"three")
    os.close(out)
    os.close(err)
    assert drain(out_read) == b"one\nthree"
    assert drain(err_read) == b"two"
    os.close(out_read)
    os.close(err_read)


def test_the_progress_line_stands_below_the_output_and_goes_in_the_end() -> None:
    controller, terminal = pty.openpty()
    with Screen(terminal, terminal, progress=lambda _width: "1 running") as screen:
        screen.write("stdout", b"one\n")
        screen.flush()
        screen.write("stdout", b"two\n")
        screen.flush()
    os.close(terminal)
    shown = drain(controller)
    os.close(controller)
    erase = b"\r\x1b[K"
    assert shown.count(b"1 running") == 2
    assert (
        shown.replace(b"\r\n", b"\n").replace(erase + b"1 running", b"").replace(erase, b"")
        == b"one\ntwo\n"
    )
    assert shown.endswith(erase)


def test_an_unfinished_line_is_left_alone_by_the_progress_line() -> None:
    controller, terminal = pty.openpty()
    with Screen(terminal, terminal, progress=lambda _width: "1 running") as screen:
        screen.write("stdout", b"Password: ")
        screen.flush()
        screen.say("a word")
    os.close(terminal)
    shown = drain(controller)
    os.close(controller)
    assert shown.startswith(b"Password: \r\na word\r\n")


def test_a_slow_reader_of_a_nonblocking_pipe_gets_everything() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(drain(read)))
    data = os.urandom(1 << 20)
    reader.start()
    write_all(write, data)
    os.close(write)
    reader.join(10)
    os.close(read)
    assert got == [data]
