"""A whole system of real processes in one folder: a server, agents, tasks, the CLI.

For tests that need the truth: everything here is started as a user would start it, can be
killed at any instant, and is judged from outside (the `Ledger`), never by what it says itself.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self, TypeVar

import psutil

from fleetwire.agent.vault import Vault
from fleetwire.client import Client, Run, RunRequest, Script, ServerFault, ServerUnreachable
from fleetwire.core import pins
from fleetwire.shim import delivery
from fleetwire.testing.disks import SmallDisk

T = TypeVar("T")
PROGRAM = (sys.executable, "-m", "fleetwire.cli")
PATIENCE_S = 60.0


def wait_until(look: Callable[[], T], what: str, *, within: float = PATIENCE_S) -> T:
    """Return the first true value of `look`, or raise with what was waited for."""
    give_up = time.monotonic() + within
    while not (found := look()):
        if time.monotonic() > give_up:
            raise TimeoutError(f"waited {within:g} s in vain for: {what}")
        time.sleep(0.01)
    return found


def free_port() -> int:
    """Return a port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Ledger:
    """What really happened, written by the tasks themselves with one atomic append each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def line(self, what: str = "$FLEETWIRE_ATTEMPT") -> str:
        """Return the shell line that a task puts first."""
        return f'echo "{what}" >> {self.path}\n'

    def lines(self) -> list[str]:
        """Return what was written."""
        return self.path.read_text().splitlines()

    def starts(self, attempt: str) -> int:
        """Return how often an attempt really started."""
        return self.lines().count(attempt)


class Daemon:
    """One process of the system, its log in a file."""

    def __init__(self, argv: list[str], log: Path, env: Mapping[str, str]) -> None:
        self.log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=dict(env)
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.process.kill()
        self.process.wait()

    def stop(self, within: float = 20.0) -> int:
        """Ask it to leave, as an operator would, and return its exit code."""
        self.process.terminate()
        return self.process.wait(within)


Popen = subprocess.Popen[bytes]


class Lab:
    """A context manager: everything that was started in it is gone when it is left."""

    def __init__(
        self,
        folder: Path,
        *,
        database: str | None = None,
        tls: bool = False,
        server_flags: tuple[str, ...] = (),
    ) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.disk: SmallDisk | None = None  # of the server's data
        self.port = free_port()
        self.tls = tls
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.server_flags = (*(("--tls", "auto") if tls else ()), *server_flags)
        self.ledger = Ledger(folder / "ledger")
        self.server: Daemon | None = None
        self.agents: dict[str, Daemon] = {}
        self._enrolled: set[str] = set()
        self._database = database
        self._token = ""
        self._clients: list[Client] = []
        # As on a user's machine: what is imported is compiled once.
        inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        self.env = {
            **inherited,
            "XDG_CONFIG_HOME": str(folder / "config"),
            "XDG_DATA_HOME": str(folder / "share"),
            "FLEETWIRE_URL": self.url,
            "NO_COLOR": "1",
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for client in self._clients:
            client.close()
        for daemon in (*self.agents.values(), self.server):
            if daemon is not None and daemon.process.poll() is None:
                daemon.kill()
        self.kill_leftovers()
        for name in self.agents:
            delivery.remove(Vault(str(self.state(name))).path)
        if error is not None:
            self._show_logs()

    # ------------------------------------------------------------------------------ processes

    def start_server(
        self,
        env: Mapping[str, str] | None = None,
        *,
        ready: bool = True,
        prefix: tuple[str, ...] = (),
    ) -> Daemon:
        """Start the server and return when it is ready, or else as soon as it answers at all.
        `prefix` are words before its own, which shall run it as the same process.
        """
        server = self.launch_server(env, prefix=prefix)
        self.wait_ready(ready=ready)
        if not self._token:
            self._token = self._make_token()
            self.env["FLEETWIRE_TOKEN"] = self._token
        return server

    def launch_server(
        self, env: Mapping[str, str] | None = None, *, prefix: tuple[str, ...] = ()
    ) -> Daemon:
        """Start the server and return at once."""
        argv = [*self._prefix(), *prefix, *PROGRAM, "server"]
        argv += ["--data", str(self.data), "--port", str(self.port), *self.server_flags]
        # Not an argument: it may have a password.
        database = {"FLEETWIRE_SERVER_DATABASE": self._database} if self._database else {}
        its_env = {**self.env, **database, **(env or {})}
        self.server = Daemon(argv, self.folder / "server.log", its_env)
        return self.server

    def wait_ready(self, *, ready: bool = True) -> None:
        """Wait until the server serves, or else until it answers at all."""
        server = self.server
        if server is None:
            raise LookupError("there is no server to wait for")
        if self.tls:
            wait_until(lambda: _serves(self.data, server), "the server to have its certificate")
            self.env["FLEETWIRE_CA_FINGERPRINT"] = self.fingerprint
        with self.new_client() as client:
            wait_until(lambda: _ready(client, server, ready=ready), "the server to be ready")

    def start_agent(
        self,
        name: str = "node-1",
        *flags: str,
        env: Mapping[str, str] | None = None,
        online: bool = True,
        prefix: tuple[str, ...] = (),
    ) -> Daemon:
        """Start an agent (enrolling it the first time) and return when it is online, or at once."""
        daemon = self.launch_agent(name, *flags, env=env, prefix=prefix)
        if online:
            self.wait_online(name)
        return daemon

    def launch_agent(
        self,
        name: str,
        *flags: str,
        env: Mapping[str, str] | None = None,
        server: str | None = None,
        prefix: tuple[str, ...] = (),
    ) -> Daemon:
        """Start an agent and return at once; `server` is the URL that it dials, if another."""
        state = self.state(name)
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        server = server or self.url
        argv = [*prefix, *PROGRAM, "agent"]
        argv += ["--server", server, "--state", str(state), "--name", name]
        if self.tls:
            argv += ["--ca-fingerprint", self.fingerprint]
        if name not in self._enrolled:
            self._enrolled.add(name)
            token_file = self.folder / f"{name}.token"
            token_file.write_text(str(self.client.create_enrolment_token().token))
            token_file.chmod(0o600)
            argv += ["--token-file", str(token_file)]
        log = self.folder / f"{name}.log"
        daemon = Daemon([*argv, *flags], log, {**self.env, **(env or {})})
        self.agents[name] = daemon
        return daemon

    def state(self, name: str) -> Path:
        """Return the state directory of a node's agent."""
        return self.folder / "agents" / name

    def wait_online(self, name: str) -> None:
        """Wait until the server shows the node online."""
        client = self.client

        def online() -> bool:
            if (code := self.agents[name].process.poll()) is not None:
                raise RuntimeError(f"the agent {name} ended, with code {code}")
            return any(node.name == name and node.link != "offline" for node in client.nodes())

        wait_until(online, f"{name} online")

    def spawner(self, name: str = "node-1") -> psutil.Process:
        """Return the spawner of a node's agent."""
        try:
            known = json.loads((self.state(name) / "spawner.json").read_bytes())
            process = psutil.Process(known["pid"])
            # The shims of a spawner that was killed look like it: only its record tells them apart.
            begun = Path(f"/proc/{process.pid}/stat").read_bytes().rpartition(b") ")[2].split()[19]
        except (OSError, psutil.NoSuchProcess):
            raise LookupError(f"{name} has no spawner") from None
        if int(begun) != known["start"] or process.status() == psutil.STATUS_ZOMBIE:
            raise LookupError(f"{name} has no spawner")
        return process

    def processes_of(self, attempt: str) -> list[psutil.Process]:
        """Return every living process that carries the attempt's marker."""
        marker = f"FLEETWIRE_ATTEMPT={attempt}".encode()
        found = []
        for process in psutil.process_iter():
            try:
                environment = Path(f"/proc/{process.pid}/environ").read_bytes()
                if marker in environment.split(b"\0") and process.status() != "zombie":
                    found.append(process)
            except (OSError, psutil.Error):
                continue  # it has just ended
        return found

    def kill_leftovers(self) -> None:
        """Kill spawners, shims and tasks of this folder."""
        mark = str(self.folder)
        for process in psutil.process_iter(["cmdline"]):
            if process.pid == os.getpid():
                continue
            try:
                words = process.info["cmdline"] or []
                inside = any(mark in word for word in words) or process.cwd().startswith(mark)
                if inside:
                    process.send_signal(signal.SIGKILL)
            except (psutil.Error, OSError):
                continue  # it has just ended

    # ------------------------------------------------------------------------------ using it

    @property
    def client(self) -> Client:
        """A new client with the administrator's token."""
        client = self.new_client(self._token, patience=PATIENCE_S)
        self._clients.append(client)
        return client

    def new_client(self, token: str | None = None, *, patience: float = 30.0) -> Client:
        """Return a client that is not logged in, or has another token."""
        ca = (self.data / "tls/ca.pem").read_text() if self.tls else None
        return Client(self.url, token, patience=patience, ca=ca)

    @property
    def fingerprint(self) -> str:
        """Return the fingerprint of the server's own CA."""
        return pins.fingerprint((self.data / "tls/ca.pem").read_text())

    def submit(self, script: str, *nodes: str, timeout: float = 120.0, **spec: object) -> Run:
        """Submit a script to nodes (default: node-1)."""
        wanted = Script(script, timeout=timeout, **spec)  # type: ignore[arg-type]  # a test's words
        return self.client.create_run(RunRequest(wanted, nodes=nodes or ("node-1",)))

    def cli(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run the CLI to its end."""
        return subprocess.run(
            [*PROGRAM, *words],
            input=stdin,
            capture_output=True,
            text=True,
            env=self.env,
            timeout=PATIENCE_S * 2,
            check=False,
        )

    def cli_begin(self, *words: str, stdout: IO[bytes] | int = subprocess.PIPE) -> Popen:
        """Start the CLI and return while it works."""
        return subprocess.Popen(
            [*PROGRAM, *words],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=self.env,
        )

    def _prefix(self) -> tuple[str, ...]:
        return () if self.disk is None else self.disk.prefix

    def _make_token(self) -> str:
        path = self.data / "admin-password"
        password = (path if self.disk is None else self.disk.seen(path)).read_text().strip()
        with self.new_client() as client:
            client.login("admin", password)
            return str(client.create_token("lab").token)

    def _show_logs(self) -> None:
        for log in sorted(self.folder.glob("*.log")):
            sys.stderr.write(f"--- {log.name}\n{log.read_text(errors='replace')[-4000:]}\n")


def _serves(data: Path, server: Daemon) -> bool:
    if server.process.poll() is not None:
        raise RuntimeError(f"the server ended at once, with code {server.process.returncode}")
    return (data / "server.json").exists()


def _ready(client: Client, server: Daemon, *, ready: bool) -> bool:
    if server.process.poll() is not None:
        raise RuntimeError(f"the server ended at once, with code {server.process.returncode}")
    try:
        client.ready() if ready else client.healthy()
    except (ServerUnreachable, ServerFault):
        return False
    return True
