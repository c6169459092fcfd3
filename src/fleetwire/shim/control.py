"""The `control` socket of a living shim: one JSON object a line, each way (docs/seams.md).

`ask` is the agent's side. `ControlServer` is the shim's: sans-loop, it is told which descriptor
is ready and holds no thread and no timer.
"""

import json
import os
import socket
import sys
from collections.abc import Callable
from typing import Any, Protocol

from fleetwire.shim.locks import open_folder

NAME = "control"
LONGEST_LINE = 1024 * 1024
_CHUNK = 64 * 1024


class ShimGone(ConnectionError):
    """No shim answers for this folder: it has not begun, has ended, or was killed."""


class Watch(Protocol):
    """What the server needs of the shim's loop: be called when a descriptor can be read."""

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        """Call `ready` whenever `fd` can be read."""

    def forget(self, fd: int) -> None:
        """Look at `fd` no more."""


def ask(folder: str, request: dict[str, Any], *, timeout: float = 5.0) -> dict[str, Any]:
    """Send one request to the shim of this folder and return its answer.

    Raises ShimGone when there is no shim to answer, TimeoutError when it does not in time.
    """
    with connect(folder, timeout=timeout) as connection:
        try:
            connection.sendall(json.dumps(request).encode() + b"\n")
            answer = b""
            while not answer.endswith(b"\n"):
                part = connection.recv(_CHUNK)
                if not part:
                    raise ShimGone(f"the shim of {folder} ended before it answered")
                answer += part
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ShimGone(f"the shim of {folder} ended before it answered") from error
    value: dict[str, Any] = json.loads(answer)
    return value


def connect(folder: str, *, timeout: float | None = 5.0) -> socket.socket:
    """A connection to the shim's control socket. Raises ShimGone when nothing listens there."""
    connection = unix_socket()
    try:
        connection.settimeout(timeout)
        directory = open_folder(folder)
        try:
            connection.connect(address(directory, folder, NAME))
        finally:
            os.close(directory)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        connection.close()
        raise ShimGone(f"no shim listens in {folder}") from error
    except BaseException:
        connection.close()
        raise
    return connection


def listen(directory: int, folder: str, name: str) -> socket.socket:
    """A listening Unix socket NAME in the folder, in the place of one left by a dead process."""
    listener = unix_socket()
    try:
        path = address(directory, folder, name)
        try:
            listener.bind(path)
        except OSError:  # EADDRINUSE: whose it was is dead, because we hold the lock
            os.unlink(name, dir_fd=directory)
            listener.bind(path)
        listener.listen(64)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def unix_socket() -> socket.socket:
    """A Unix stream socket, not connected."""
    if sys.platform == "win32":
        raise OSError("attempts cannot run on Windows yet: Python has no Unix sockets there")
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)


def address(directory: int, folder: str, name: str) -> str:
    """A path for bind and connect: the kernel takes 107 bytes, a state directory may have more."""
    short = f"/proc/self/fd/{directory}/{name}"
    return short if sys.platform == "linux" else os.path.join(folder, name)


class ControlServer:
    """Accepts connections on `listener`, which is its own from now on, and answers each line with
    what `answer` returns.
    """

    def __init__(
        self,
        listener: socket.socket,
        loop: Watch,
        answer: Callable[[dict[str, Any]], dict[str, Any]],
    ) -> None:
        self._listener = listener
        self._loop = loop
        self._answer = answer
        self._partial: dict[socket.socket, bytes] = {}
        loop.watch(listener.fileno(), self._accept)

    @property
    def connected(self) -> int:
        """How many are connected."""
        return len(self._partial)

    def close(self) -> None:
        """Close the connections and the listening socket."""
        for connection in list(self._partial):
            self._close(connection)
        self._loop.forget(self._listener.fileno())
        self._listener.close()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return  # the peer has already given up
        connection.setblocking(False)
        self._partial[connection] = b""
        self._loop.watch(connection.fileno(), lambda: self._receive(connection))

    def _receive(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(_CHUNK)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        *lines, rest = (self._partial[connection] + data).split(b"\n")
        if not data or len(rest) > LONGEST_LINE:
            self._close(connection)
            return
        self._partial[connection] = rest
        answers = b"".join(self._answer_line(line) for line in lines)
        try:
            connection.sendall(answers)
        except (BlockingIOError, ConnectionError):
            self._close(connection)  # does not read its answers: not worth waiting for

    def _answer_line(self, line: bytes) -> bytes:
        try:
            request = json.loads(line)
            answer = {"ok": True, **self._answer(request)}
        except OSError as error:
            answer = {"ok": False, "error": error.strerror or str(error)}
        except Exception as error:  # noqa: BLE001 (no request may end a shim, and so its task)
            detail = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            answer = {"ok": False, "error": f"the request was not understood: {detail}"}
        return json.dumps(answer).encode() + b"\n"

    def _close(self, connection: socket.socket) -> None:
        del self._partial[connection]
        self._loop.forget(connection.fileno())
        connection.close()
