"""The agent's door to the spawner: find or start one, ask it for shims, bury what it left.

The spawner itself is `forkserver`; it runs as `python -m fleetwire.shim STATE_DIR` and outlives
the agent. Everything here blocks: an event loop calls it in a thread, or writes the one-line
requests to the socket itself.
"""

import json
import os
import socket
import subprocess
import sys
import time
from typing import Any

from fleetwire.shim.control import address, unix_socket
from fleetwire.shim.locks import open_folder

if sys.platform == "win32":

    def bury(folder: str) -> str | None:
        """Refuse: nothing can have been started there."""
        raise OSError(f"attempts cannot run on Windows yet, so nothing of {folder} can be left")

    def release(folder: str) -> None:
        """Nothing can have been made there."""
else:
    from fleetwire.shim.burial import bury
    from fleetwire.shim.confine import forget as release

__all__ = ["SOCKET", "SpawnerError", "bury", "ensure", "release", "start"]

SOCKET = "spawner.sock"
_RETRY_S = 0.005


class SpawnerError(RuntimeError):
    """The spawner could not be started, or refused a request."""


def ensure(state: str, *, timeout: float = 10.0) -> socket.socket:
    """A connection to the spawner of this state directory, which is started if none answers.

    The spawner stays as long as the connection is open. Raises SpawnerError with what the spawner
    said when it cannot be started.
    """
    give_up = time.monotonic() + timeout
    while True:
        connection = _connect(state, timeout)
        if connection is not None:
            return connection
        if time.monotonic() >= give_up:
            raise SpawnerError(f"no spawner answers in {state}; see logs/spawner.log there")
        _launch(state, timeout)


def start(connection: socket.socket, attempt: str) -> int:
    """Have a shim forked for the attempt, whose folder holds an `order`; returns the shim's pid.

    Whether it starts the task is in the folder, nowhere else. Raises SpawnerError when the
    spawner refuses, ConnectionError when it is gone.
    """
    answer = _ask(connection, {"do": "start", "attempt": attempt})
    if not answer.get("ok"):
        raise SpawnerError(f"the spawner did not start {attempt}: {answer.get('error')}")
    return int(answer["pid"])


def _ask(connection: socket.socket, request: dict[str, Any]) -> dict[str, Any]:
    connection.sendall(json.dumps(request).encode() + b"\n")
    answer = b""
    while not answer.endswith(b"\n"):
        part = connection.recv(65536)
        if not part:
            raise ConnectionResetError("the spawner has gone; ensure() starts another one")
        answer += part
    value: dict[str, Any] = json.loads(answer)
    return value


def _connect(state: str, timeout: float) -> socket.socket | None:
    connection = unix_socket()
    try:
        connection.settimeout(timeout)
        directory = open_folder(state)
        try:
            connection.connect(address(directory, state, SOCKET))
        finally:
            os.close(directory)
        # Answered means that it has seen us, and so that it will not leave for want of an agent.
        _ask(connection, {"do": "ping"})
    except (FileNotFoundError, ConnectionError):
        connection.close()
        return None
    except BaseException:
        connection.close()
        raise
    return connection


def _launch(state: str, timeout: float) -> None:
    """Start a spawner; returns when it listens, or when another one turned out to be there."""
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    # -P: nothing is imported from where we happen to stand. -S: `site` costs time and memory, and
    # the standard library is all we need. The environment has what that takes and no secret.
    command = [sys.executable, "-P", "-S", "-m", "fleetwire.shim", os.path.abspath(state)]
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONPATH": package,
        "LC_ALL": "C.UTF-8",
    }
    result = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
        timeout=timeout,
        check=False,
    )
    if result.returncode:
        said = result.stderr.decode(errors="replace").strip()
        raise SpawnerError(f"the spawner of {state} could not be started: {said}")
    if os.path.exists(os.path.join(state, SOCKET)):
        return
    time.sleep(_RETRY_S)  # another one was faster and is about to listen
