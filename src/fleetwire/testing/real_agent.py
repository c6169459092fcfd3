"""A real agent, a process of its own with real spawner and shims, against a FakeServer.

It has one state directory and one enrolled node; the process may be killed and launched again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec

from fleetwire.agent import enrol, identity
from fleetwire.agent.vault import Vault
from fleetwire.shim import control, delivery, spawner
from fleetwire.testing.fake_server import CLUSTER, FakeNode, FakeServer

SOURCE = Path(__file__).parents[2]


class RealAgent:
    """One node with its state directory, one FakeServer, and the agent's process."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "state"
        self.state.mkdir(mode=0o700)
        self.server = FakeServer()
        self.agents: list[subprocess.Popen[bytes]] = []
        self.said = root / "stderr"
        self.node: FakeNode

    def enrol(self) -> None:
        """Make the node known to the server, and the server to the node."""
        own = enrol.new_identity()
        self.node = self.server.enrol(own.signing_key, own.sealing_key)
        identity.save(
            str(self.state),
            msgspec.structs.replace(
                own,
                node=self.node.id,
                name="lab",
                cluster=CLUSTER,
                server_keys=self.server.server_keys(),
            ),
        )

    def launch(
        self, *flags: str, env: dict[str, str] | None = None, pass_fds: Collection[int] = ()
    ) -> None:
        """Start an agent with these flags. It gets no environment but PATH and `env`."""
        command = [sys.executable, "-m", "fleetwire.agent", "--state", str(self.state)]
        if "--server" not in flags:
            command += ["--server", self.server.url]
        environment = {"PYTHONPATH": str(SOURCE), "PATH": os.environ["PATH"], **(env or {})}
        with self.said.open("ab") as said:
            self.agents.append(
                subprocess.Popen(
                    [*command, *flags], env=environment, stderr=said, pass_fds=pass_fds
                )
            )

    @property
    def agent(self) -> subprocess.Popen[bytes]:
        """The agent that was launched last."""
        return self.agents[-1]

    def kill(self) -> None:
        """Kill the agent (SIGKILL) and wait until it is gone."""
        self.agent.kill()
        self.agent.wait()

    async def leave(self) -> int:
        """Ask the agent to leave; return its exit code."""
        self.agent.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.agent.wait, 10)

    async def up(self, *flags: str, env: dict[str, str] | None = None) -> None:
        """Start server and agent, and wait until the first level has been exchanged."""
        await self.server.start()
        self.launch(*flags, env=env)
        await self.connected()

    async def connected(self, links: int = 1) -> None:
        """Wait until the agent is connected and has reported for the nth time."""
        await self.server.wait(
            lambda: self.server.connected(self.node) and len(self.node.complete) >= links
        )

    def spool(self, attempt: str) -> Path:
        """Return the spool folder of an attempt."""
        return self.state / "spool" / attempt

    def task(self, attempt: str) -> Path:
        """Return the working directory of an attempt."""
        return self.state / "tasks" / attempt

    def spawner_pid(self) -> int:
        """Return the process id of the spawner."""
        return int(msgspec.json.decode((self.state / "spawner.json").read_bytes())["pid"])

    async def eventually(self, until: Callable[[], object], timeout_s: float = 15.0) -> None:
        """Wait for what no frame announces (a file, a process)."""
        async with asyncio.timeout(timeout_s):
            while not until():  # noqa: ASYNC110 (a file or a process tells nobody)
                await asyncio.sleep(0.01)

    def stderr(self) -> str:
        """Return what all agents have written to stderr."""
        return self.said.read_text(errors="replace") if self.said.exists() else ""

    def close(self) -> None:
        """End everything: agents, tasks, spawner."""
        for agent in self.agents:
            if agent.poll() is None:
                agent.kill()
            agent.wait()
        spools = self.state / "spool"
        for folder in spools.iterdir() if spools.is_dir() else ():
            with contextlib.suppress(OSError):
                control.ask(str(folder), {"do": "stop", "grace_s": 0})
        if (self.state / spawner.SOCKET).exists():
            with contextlib.suppress(OSError, ValueError):
                connection = spawner.ensure(str(self.state))
                connection.sendall(b'{"do": "leave"}\n')
                connection.close()
        delivery.remove(Vault(str(self.state)).path)
