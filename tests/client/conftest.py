"""A server of a few lines on a real socket: what it does is data of the test."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import BinaryIO, NamedTuple, TypeAlias

import pytest

Reply: TypeAlias = Callable[..., bytes]


class Asked(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class ScriptedServer:
    """Answers each request with what `answers` gives next: bytes to send, then whether to close.
    An answer of None closes the connection without a word, as a killed server does.
    """

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.answers: list[bytes | Callable[[Asked], bytes | None] | None] = []
        self.closing = False
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.closing = True
        with socket.socket() as poke:
            poke.connect(("127.0.0.1", self.port))
        self._thread.join(5)
        self._listening.close()

    def _serve(self) -> None:
        others: list[threading.Thread] = []
        while not self.closing:
            connection, _ = self._listening.accept()
            thread = threading.Thread(target=self._talk, args=(connection,), daemon=True)
            thread.start()
            others.append(thread)
        for thread in others:
            thread.join(5)

    def _talk(self, connection: socket.socket) -> None:
        connection.settimeout(5)
        with connection, connection.makefile("rb") as stream:
            while not self.closing:
                try:
                    asked = self._read(stream)
                except OSError:
                    return
                if asked is None:
                    return
                self.asked.append(asked)
                answer = self.answers.pop(0)
                if callable(answer):
                    answer = answer(asked)
                if answer is None:
                    return
                connection.sendall(answer)
                if b"Content-Length" not in answer:
                    return

    @staticmethod
    def _read(stream: BinaryIO) -> Asked | None:
        line = stream.readline().decode()
        if not line:
            return None
        method, path, _ = line.split(" ")
        headers = {}
        while line := stream.readline().decode().strip():
            name, _, value = line.partition(": ")
            headers[name] = value
        body = stream.read(int(headers.get("Content-Length", 0)))
        return Asked(method, path, headers, body)


def reply(body: bytes, status: int = 200, kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def streamed(body: bytes) -> bytes:
    """An event stream that ends where `body` ends, by closing."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + body


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    scripted = ScriptedServer()
    yield scripted
    scripted.close()


@pytest.fixture(name="reply")
def reply_fixture() -> Callable[..., bytes]:
    return reply


@pytest.fixture(name="streamed")
def streamed_fixture() -> Callable[[bytes], bytes]:
    return streamed


@pytest.fixture(scope="session")
def server_factory() -> Callable[[], AbstractContextManager[ScriptedServer]]:
    """For property tests, which need a fresh server for each example."""

    @contextmanager
    def make() -> Iterator[ScriptedServer]:
        scripted = ScriptedServer()
        try:
            yield scripted
        finally:
            scripted.close()

    return make
