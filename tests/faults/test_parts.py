"""The lab's own parts: the proxy's troubles on real sockets, the trend of sizes, its readers."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Self

import pytest

from fleetwire.testing.faults.proxy import Proxy, Trouble
from fleetwire.testing.faults.system import tracebacks
from fleetwire.testing.faults.tasks import KINDS, Task
from fleetwire.testing.faults.trend import LEAST_S, WARM_UP_S, Sample, steep
from fleetwire.testing.lab import wait_until
from fleetwire.testing.simulation.chance import Chance


class Echo:
    """A server that sends back what it gets."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.ended = 0
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    connection.sendall(data)
            except OSError:
                pass
        self.ended += 1


@pytest.fixture
def echo() -> Iterator[Echo]:
    with Echo() as server:
        yield server


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy(echo.port) as between:
        yield between


def connected(proxy: Proxy) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", proxy.port))
    client.settimeout(10)
    try:
        client.sendall(b"hello")
        assert client.recv(5) == b"hello"
    except BaseException:
        client.close()
        raise
    return client


def test_the_proxy_passes_on_every_byte(proxy: Proxy) -> None:
    data = bytes(range(256)) * 4096
    with connected(proxy) as client:
        sender = threading.Thread(target=client.sendall, args=(data,))
        sender.start()
        got = b""
        while len(got) < len(data):
            got += client.recv(1 << 20)
        sender.join()
    assert got == data


@pytest.mark.parametrize("how", ["cut", "refused"])
def test_a_cut_resets_what_is_there(proxy: Proxy, how: str) -> None:
    with connected(proxy) as client:
        proxy.trouble(Trouble(how, 1.0))  # type: ignore[arg-type]
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    if how == "refused":
        with pytest.raises((ConnectionResetError, BrokenPipeError, AssertionError)):
            connected(proxy)
        proxy.peace()
    connected(proxy).close()


def test_a_torn_connection_ends_in_the_middle(proxy: Proxy) -> None:
    with connected(proxy) as client:
        proxy.trouble(Trouble("torn", 1.0, 10))
        client.sendall(b"0123456")  # seven of the ten, so the answer has three
        got: list[bytes] = []
        with pytest.raises(ConnectionResetError):
            got.extend(client.recv(100) for _ in range(2))
        assert b"0123456".startswith(b"".join(got))
        assert len(b"".join(got)) <= 3


@pytest.mark.parametrize("how", ["stalled", "up-stalled", "down-stalled"])
def test_what_is_stalled_comes_later(proxy: Proxy, how: str) -> None:
    with connected(proxy) as client:
        proxy.trouble(Trouble(how, 1.0))  # type: ignore[arg-type]
        client.sendall(b"later")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(5)
        client.settimeout(10)
        proxy.peace()
        assert client.recv(5) == b"later"


def test_a_half_open_connection_is_silent(proxy: Proxy, echo: Echo) -> None:
    with connected(proxy) as client:
        proxy.trouble(Trouble("half-open", 1.0))
        wait_until(lambda: echo.ended == 1, "the server's end")
        client.sendall(b"nobody")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(10)
        connected(proxy).close()
        proxy.peace()
        with pytest.raises(ConnectionResetError):
            client.recv(1)


@pytest.mark.parametrize(("how", "amount"), [("delayed", 150), ("throttled", 50)])
def test_a_slow_network_is_slow(proxy: Proxy, how: str, amount: int) -> None:
    with connected(proxy) as client:
        proxy.trouble(Trouble(how, 1.0, amount))  # type: ignore[arg-type]
        began = time.monotonic()
        client.sendall(b"0123456789")
        assert client.recv(10) == b"0123456789"
        assert time.monotonic() - began >= 0.25  # both ways


def life(
    memory: Callable[[float], float], for_s: float = WARM_UP_S + LEAST_S + 60, every_s: int = 5
) -> list[Sample]:
    return [Sample(at, int(memory(at)), 20, 4) for at in range(0, int(for_s), every_s)]


MIB = 1 << 20


def test_a_leak_is_not_flat() -> None:
    assert steep(life(lambda at: 50 * MIB + at * 0.1 * MIB))
    grown = [Sample(s.at, s.memory, int(20 + s.at / 30), 4) for s in life(lambda _: 50 * MIB)]
    assert [said.split()[0] for said in steep(grown)] == ["descriptors"]
    grown = [Sample(s.at, s.memory, 20, int(4 + s.at / 60)) for s in life(lambda _: 50 * MIB)]
    assert [said.split()[0] for said in steep(grown)] == ["threads"]


def test_noise_and_growing_up_are_flat() -> None:
    assert steep(life(lambda at: 50 * MIB + (at % 7) * MIB)) == []
    assert steep(life(lambda at: min(1.0, at / WARM_UP_S) * 50 * MIB)) == []
    assert steep(life(lambda at: at * MIB, for_s=WARM_UP_S)) == []  # too short to say
    assert steep([]) == []
    rare = life(lambda at: at * MIB, every_s=70)  # as the soak looks: after each stretch
    assert steep(rare) == []
    assert steep(life(lambda at: at * MIB, WARM_UP_S + 3 * LEAST_S, every_s=70))


def test_a_traceback_is_found_in_lines_and_in_json() -> None:
    assert tracebacks(b"all is well\n") == []
    text = b"said\nTraceback (most recent call last):\n  File x\n    y()\nOSError: no\nsaid\n"
    assert tracebacks(text) == ["OSError: no"]
    line = (
        rb'{"exception": "Traceback (most recent call last):\n  File x\nKeyError: 1"}' + b"\n{}\n"
    )
    assert tracebacks(line) == ["KeyError: 1"]
    assert tracebacks(b"Traceback (most recent call last):\n  File x\n") == ["cut off"]


def test_a_load_is_the_same_for_the_same_seed() -> None:
    first, second = ([Task.of(Chance(4711)) for _ in range(3)] for _ in range(2))
    assert first == second
    assert {Task.of(Chance(n)).kind for n in range(200)} == set(KINDS)
