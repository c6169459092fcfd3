"""A state directory with a real spawner, and orders for real processes."""

import contextlib
import errno
import hashlib
import json
import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest

from fleetwire.shim import control, forkserver, spawner, spool, tree
from fleetwire.shim.records import LAST_RECORDS

T = TypeVar("T")
PATIENCE_S = 30.0


def wait_until(look: Callable[[], T], what: str = "") -> T:
    """The first true answer of `look`; fails after half a minute."""
    give_up = time.monotonic() + PATIENCE_S
    while not (answer := look()):
        assert time.monotonic() < give_up, f"waited in vain for {what or look}"
        time.sleep(0.002)
    return answer


def alive(pid: int) -> bool:
    """Whether the process runs: a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in {b"Z", b"X"}


def marked(attempt: str) -> list[int]:
    """Everyone who carries the attempt's marker, found by a look of our own at /proc."""
    marker = f"FLEETWIRE_ATTEMPT={attempt}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if marker in (entry / "environ").read_bytes().split(b"\0") and alive(
                    int(entry.name)
                ):
                    found.append(int(entry.name))
    return found


class Disk:
    """Lets `free` bytes through, and says ENOSPC then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, free: int) -> None:
        self.free = free
        self.real = os.writev
        monkeypatch.setattr(os, "writev", self.writev)

    def writev(self, fd: int, buffers: Sequence[bytes | memoryview]) -> int:
        data = b"".join(bytes(b) for b in buffers)[: self.free]
        if not data:
            raise OSError(errno.ENOSPC, "full")
        self.free -= len(data)
        return self.real(fd, [data])


class Placed:
    """One attempt's folder, with an order in it."""

    def __init__(self, node: "Node", attempt: str) -> None:
        self.node = node
        self.attempt = attempt
        self.folder = str(node.state / "spool" / attempt)
        self.home = node.state / "tasks" / attempt
        self.shim = 0

    def start(self) -> int:
        pid = spawner.start(self.node.connection, self.attempt)
        self.shim = self.shim or pid
        return pid

    def has(self, name: str) -> bool:
        return os.path.exists(os.path.join(self.folder, name))

    def record(self, name: str) -> dict[str, Any]:
        record = spool.read_record(self.folder, name)
        assert record is not None, f"no {name} among {sorted(os.listdir(self.folder))}"
        return record

    def wait(self, name: str = "exit") -> dict[str, Any]:
        """The record, once it is there; any other last record is a failure."""
        wait_until(lambda: self.has(name) or self.last(), name)
        assert self.has(name), f"ended as {self.last()}: {self.record(self.last())}"
        return self.record(name)

    def killed(self, *, with_spawner: bool) -> dict[str, Any]:
        """Its end when its shim is killed: the spawner judges it, or who buries it after both."""
        if not with_spawner:
            os.kill(self.node.spawner_pid(), signal.SIGKILL)
        os.kill(self.shim, signal.SIGKILL)
        if not with_spawner:
            wait_until(lambda: spawner.bury(self.folder), "the burial")
            self.node.disconnect()
        return self.wait("lost")

    def last(self) -> str:
        return next((name for name in LAST_RECORDS if self.has(name)), "")

    def run(self) -> dict[str, Any]:
        """Start it, wait for `exit`, check what holds for every exit."""
        self.start()
        record = self.wait()
        self.check()
        return record

    def check(self) -> None:
        record = self.record("exit")
        log = self.log()
        assert record["length"] == self.length()
        if record["error"] is None:
            assert record["sha256"] == hashlib.sha256(log).hexdigest()
        assert marked(self.attempt) == []
        wait_until(lambda: not spool.is_locked(self.folder), "the lock to be free")

    def frames(self) -> list[spool.Frame]:
        reader = spool.SpoolReader(self.folder)
        found: list[spool.Frame] = []
        present = spool.pieces(self.folder)
        offset = present[0] if present else 0
        while frames := reader.read(offset, 1 << 20):
            found += frames
            offset = frames[-1].offset + frames[-1].length
        reader.close()
        return found

    def log(self, stream: int | None = None) -> bytes:
        return b"".join(bytes(f.payload) for f in self.frames() if stream in {None, f.stream})

    def length(self) -> int:
        frames = self.frames()
        return frames[-1].offset + frames[-1].length if frames else 0

    def ask(self, do: str, **more: object) -> dict[str, Any]:
        """Ask its shim, which listens once the task has lived a while."""
        if self.has("epoch"):
            wait_until(lambda: self.has("started") or self.last(), "started")
        return control.ask(self.folder, {"do": do, **more})

    def blocked(self) -> bool:
        """Whether the pump has stopped reading; not while no shim listens."""
        try:
            return bool(self.ask("status")["blocked"])
        except control.ShimGone:
            return False

    def wait_started(self) -> None:
        wait_until(lambda: self.has("started"), "started")

    def wait_output(self, text: bytes) -> None:
        wait_until(lambda: text in self.log(), f"{text!r} in the log")

    def stop(self, grace_s: float) -> None:
        assert self.ask("stop", grace_s=grace_s)["ok"]


class Node:
    """A state directory and a connection to its spawner."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.placed: list[Placed] = []
        self._connection: socket.socket | None = None

    @property
    def connection(self) -> socket.socket:
        if self._connection is None:
            self.state.mkdir(exist_ok=True)
            if "coverage" in sys.modules:
                self.fork_spawner()
            self._connection = spawner.ensure(str(self.state))
        return self._connection

    def disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def fork_spawner(self) -> None:
        """Start the spawner as a fork of this process: measured and changed as this one is."""
        self.state.mkdir(exist_ok=True)
        pid = os.fork()
        if pid == 0:
            os._exit(forkserver.main([str(self.state)]))
        assert os.waitpid(pid, 0)[1] == 0

    def spawner_pid(self) -> int:
        return int(json.loads((self.state / "spawner.json").read_bytes())["pid"])

    def place(self, *argv: str, attempt: str = "", **order: object) -> Placed:
        """An order for this argv; `order` overrides its fields, `env` adds to it."""
        placed = Placed(self, attempt or str(uuid.uuid4()))
        os.makedirs(placed.folder, mode=0o700)
        placed.home.mkdir(parents=True)
        env = {
            "FLEETWIRE_ATTEMPT": placed.attempt,
            "PATH": os.defpath,
            **cast("dict[str, str]", order.pop("env", {})),
        }
        full = {
            "attempt": placed.attempt,
            "epoch": 7,
            "argv": list(argv),
            "env": env,
            "cwd": str(placed.home),
            "tty": None,
            "stdin": "null",
            "deadline_s": 60.0,
            "grace_s": 5.0,
            "quota": 1 << 30,
            "quota_policy": "block",
            "piece": 16 << 20,
            "boot_id": tree.boot_id(),
            **order,
        }
        spool.write_record(placed.folder, "order", full, sync=False)
        self.placed.append(placed)
        return placed

    def sh(self, script: str, **order: object) -> Placed:
        return self.place("/bin/sh", "-c", script, attempt="", **order)

    def python(self, script: str, **order: object) -> Placed:
        return self.place(sys.executable, "-S", "-c", script, attempt="", **order)

    def close(self) -> None:
        """End what lives, and see that nothing was left and nothing went wrong unseen."""
        for placed in self.placed:
            with contextlib.suppress(control.ShimGone):
                placed.stop(0)
        for placed in self.placed:
            wait_until(
                lambda placed=placed: not spool.is_locked(placed.folder), f"end of {placed.attempt}"
            )
        if self._connection is not None:
            self._connection.sendall(b'{"do": "leave"}\n')
            wait_until(lambda: not alive(self.spawner_pid()), "the spawner to leave")
            self.disconnect()
        for placed in self.placed:
            for pid in marked(placed.attempt):
                os.kill(pid, signal.SIGKILL)
                pytest.fail(f"process {pid} of {placed.attempt} outlived the test")


@pytest.fixture
def make_node() -> Iterator[Callable[[Path], Node]]:
    nodes: list[Node] = []

    def make(state: Path) -> Node:
        nodes.append(Node(state))
        return nodes[-1]

    yield make
    for node in nodes:
        node.close()
        log = node.state / "logs" / "spawner.log"
        said = log.read_text() if log.exists() else ""
        assert said == "", "spawner or shim complained"


@pytest.fixture
def node(tmp_path: Path, make_node: Callable[[Path], Node]) -> Node:
    return make_node(tmp_path / "state")


@pytest.fixture(name="alive")
def alive_() -> Callable[[int], bool]:
    return alive


@pytest.fixture(name="wait_until")
def wait_until_() -> Callable[..., Any]:
    return wait_until


@pytest.fixture
def disk_of() -> type[Disk]:
    return Disk


@pytest.fixture(name="marked")
def marked_() -> Callable[[str], list[int]]:
    return marked
