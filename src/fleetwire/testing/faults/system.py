"""The system under test: a server, some nodes, each behind a proxy of its own; all real processes.

It stays up between rounds, as a real one does: what one round leaves behind is what the next
begins with. What is killed or stopped is counted here, and what ends by itself is noticed.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from fleetwire.shim.records import LAST_RECORDS, read_started
from fleetwire.testing.faults.proxy import Proxy
from fleetwire.testing.faults.tasks import Book
from fleetwire.testing.lab import Daemon, Lab

_FLAGS: Final = ("--backoff-initial-s", "0.1", "--backoff-max-s", "0.5")


class System:
    """A context manager around a `Lab` in an empty folder. `url` may name another database."""

    def __init__(
        self, folder: Path, *, nodes: int = 3, database: str | None = None, capacity: int = 5
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.lab = Lab(folder, database=database)
        self.database = database
        self.names = [f"node-{n}" for n in range(1, nodes + 1)]
        self.books = folder / "books"
        self.books.mkdir()
        self.proxies = {name: Proxy(self.lab.port) for name in self.names}
        self.faults: Counter[str] = Counter()
        self.ended: list[str] = []
        self.shims_killed: set[str] = set()
        self.left = 0
        self._capacity = capacity
        self._logs_read: dict[Path, int] = {}
        self._exits = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as exits:
            exits.enter_context(self.lab)
            for proxy in self.proxies.values():
                exits.enter_context(proxy)
            self.lab.start_server()
            for name in self.names:
                self.launch_agent(name)
            for name in self.names:
                self.lab.wait_online(name)
            self._exits = exits.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._exits.__exit__(kind, error, traceback)

    # ------------------------------------------------------------------------------- daemons

    @property
    def server(self) -> Daemon:
        """The server's process, dead or alive."""
        if self.lab.server is None:
            raise LookupError("the server was not started")
        return self.lab.server

    def launch_agent(self, name: str) -> Daemon:
        """Start an agent through its proxy."""
        return self.lab.launch_agent(
            name,
            *_FLAGS,
            "--max-concurrent",
            str(self._capacity),
            env={"FLEETWIRE_AGENT_HEARTBEAT_S": "2"},
            server=f"http://127.0.0.1:{self.proxies[name].port}",
        )

    def revive_server(self) -> None:
        """Start the server, unless another act of the round has done so."""
        if not self.lives(self.server):
            self._notice("server", self.server)
            self.lab.launch_server()

    def revive_agent(self, name: str) -> None:
        """Start an agent, unless another act of the round has done so."""
        if not self.lives(self.lab.agents[name]):
            self._notice(name, self.lab.agents[name])
            self.launch_agent(name)

    def kill_server(self) -> None:
        """kill -9 of the server, if it lives."""
        self._notice("server", self.server)
        self.server.kill()
        self.faults["server"] += 1

    def stop_server(self) -> None:
        """Ask the server to leave, and wait until it has."""
        code = self.server.stop()
        if code:
            self.ended.append(f"the server left with code {code}")
        self.left = self.server.pid

    def kill_agent(self, name: str) -> None:
        """kill -9 of an agent, if it lives."""
        daemon = self.lab.agents[name]
        self._notice(name, daemon)
        daemon.kill()
        self.faults["agent"] += 1

    def kill_spawner(self, name: str) -> None:
        """kill -9 of a node's spawner, if there is one now."""
        try:
            self.lab.spawner(name).kill()
        except LookupError:
            return
        self.faults["spawner"] += 1

    def kill_shim(self, name: str, attempt: str) -> None:
        """kill -9 of the shim of an attempt, and remember whom it took with it: a shim may have
        gone on to another attempt since its `epoch` was read.
        """
        before = self.shims(name)
        pid = before.get(attempt)
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.faults["shim"] += 1
        # Afterwards its spawner may have buried it already.
        both = (*before.items(), *self.shims(name).items())
        self.shims_killed |= {one for one, its in both if its == pid}

    def shims(self, name: str) -> dict[str, int]:
        """Return the shim's pid of each attempt of a node that has started and has no last
        record.
        """
        living = {}
        for folder in self.spools(name):
            try:
                present = {path.name for path in folder.iterdir()}
                if "epoch" in present and present.isdisjoint(LAST_RECORDS):
                    record = read_started(str(folder)) or {}
                    living[folder.name] = int(record.get("shim", 0))
            except OSError:
                continue  # it has just been swept
        return {attempt: pid for attempt, pid in living.items() if pid > 1}

    def spools(self, name: str) -> list[Path]:
        """Return the spool folders of a node."""
        root = self.lab.state(name) / "spool"
        return sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []

    def restore(self) -> None:
        """Start what does not run, wait until the server serves and every node is online."""
        for proxy in self.proxies.values():
            proxy.peace()
        self.revive_server()
        for name in self.names:
            self.revive_agent(name)
        self.lab.wait_ready()
        for name in self.names:
            self.lab.wait_online(name)

    @staticmethod
    def lives(daemon: Daemon) -> bool:
        """Say whether the process runs."""
        return daemon.process.poll() is None

    def _notice(self, name: str, daemon: Daemon) -> None:
        code = daemon.process.poll()
        if code is not None and code != -signal.SIGKILL and daemon.pid != self.left:
            self.ended.append(f"{name} ended by itself, with code {code}")

    # ------------------------------------------------------------------------------- evidence

    def book(self, attempt: str) -> Book:
        """Return what the attempt's task wrote down itself."""
        path = self.books / attempt
        wrote = self.books / f"{attempt}.wrote"
        return Book.parse(
            path.read_bytes() if path.exists() else b"",
            wrote.read_bytes() if wrote.exists() else b"",
        )

    def alive(self, attempts: Collection[str]) -> Counter[str]:
        """Count the living processes that carry the marker of one of these attempts."""
        return alive(attempts)

    def tracebacks(self) -> list[str]:
        """Return what the daemons' logs have of tracebacks since the last call, one line each."""
        logs = [*self.folder.glob("*.log"), *self.folder.glob("agents/*/logs/*.log")]
        found = []
        for log in sorted(logs):
            with log.open("rb") as file:
                file.seek(self._logs_read.get(log, 0))
                fresh = file.read()
                self._logs_read[log] = file.tell()
            found += [f"{log.name}: {said}" for said in tracebacks(fresh)]
        return found


def alive(attempts: Collection[str]) -> Counter[str]:
    """Count the living processes of this machine that carry the marker of one of the attempts."""
    found: Counter[str] = Counter()
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        try:
            environment = Path(entry.path, "environ").read_bytes()
            if b"FLEETWIRE_ATTEMPT=" not in environment:
                continue
            state = Path(entry.path, "stat").read_bytes().rpartition(b") ")[2][:1]
        except OSError:
            continue  # it has just ended
        marker = environment.partition(b"FLEETWIRE_ATTEMPT=")[2].partition(b"\0")[0].decode()
        if marker in attempts and state not in {b"Z", b"X"}:
            found[marker] += 1
    return found


def tracebacks(log: bytes) -> list[str]:
    """Return what was raised at the end of each traceback in a log, of lines or of JSON."""
    found = []
    for part in log.decode("utf-8", "replace").split("Traceback (most recent call last):")[1:]:
        escaped = part.startswith("\\n")
        lines = part.partition("\n")[0].split("\\n") if escaped else part.splitlines()
        # The frames are indented; what is raised is the first line that is not.
        raised = (line for line in lines[1:] if line and not line[0].isspace())
        found.append(next(raised, "cut off").removesuffix('"}'))
    return found
