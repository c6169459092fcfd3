"""Records what an agent and a server of one release say to each other, for `histories/`.

    python -m tests.compat.record WHEEL_FOLDER FILE

Everything real: a server, an agent, four tasks (output on both streams, a failure, a stop, a cut
link in the middle), and between the two a relay that writes down every frame. A history is never
made again: a later release adds its own.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from fleetwire.protocol.versions import SUBPROTOCOL
from fleetwire.testing.lab import Lab, free_port, wait_until

INVENTORY = '{"t":"inventory","facts":{"hostname":"recorded"}}'
PUBLIC = ("node", "name", "cluster", "incarnation", "signing_key", "server_keys")


class Relay:
    """Passes frames on and writes each down; `cut` breaks what is open."""

    def __init__(self, target: str, out: IO[str]) -> None:
        self.port = free_port()
        self._target = target.replace("http:", "ws:")
        self._out = out
        self._links = 0
        self._open: list[ServerConnection] = []
        self._listening: Server | None = None
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_until_complete, args=(self._run(),)).start()

    async def _run(self) -> None:
        self._end = asyncio.Event()
        async with serve(
            self._serve,
            "127.0.0.1",
            self.port,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            max_size=None,
        ) as listening:
            self._listening = listening
            await self._end.wait()

    async def _serve(self, agent: ServerConnection) -> None:
        assert agent.request
        self._links += 1
        link = self._links
        self._open.append(agent)
        url = f"{self._target}{agent.request.path}"
        async with connect(
            url,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            proxy=None,
            max_size=None,
            origin=None,
        ) as server:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pass(link, "agent", agent, server))
                    group.create_task(self._pass(link, "server", server, agent))
            except* ConnectionClosed:
                self._open = [one for one in self._open if one is not agent]

    async def _pass(
        self,
        link: int,
        who: str,
        source: ServerConnection | ClientConnection,
        target: ServerConnection | ClientConnection,
    ) -> None:
        while True:
            frame = await source.recv()
            # What the recording machine is made of is nobody's business.
            kept = INVENTORY if isinstance(frame, str) and '"t":"inventory"' in frame else frame
            said = {"text": kept} if isinstance(kept, str) else {"hex": kept.hex()}
            self._out.write(json.dumps({"link": link, "from": who, **said}) + "\n")
            await target.send(frame)

    def cut(self) -> None:
        """Break every open link."""
        for one in self._open:
            self._loop.call_soon_threadsafe(one.transport.abort)
        self._open.clear()

    def end(self) -> None:
        """Stop listening."""
        self._loop.call_soon_threadsafe(self._end.set)


def record(release: Path, file: Path) -> None:
    """Run the system of the release and write its history."""
    env = {"PYTHONPATH": str(release)}
    with tempfile.TemporaryDirectory() as folder, Lab(Path(folder)) as lab, file.open("w") as out:
        lab.start_server(env=env)
        lab.start_agent(env=env)
        lab.agents["node-1"].stop()
        state = Path(folder) / "agents" / "node-1"
        identity = json.loads((state / "identity.json").read_text())
        relay = Relay(lab.url, out)
        header = {key: identity[key] for key in PUBLIC}
        out.write(json.dumps({"history": 1, "identity": header}) + "\n")
        lab.start_agent("node-1", "--server", f"http://127.0.0.1:{relay.port}", env=env)
        lab.client.wait(lab.submit("echo out; echo err >&2; exit 3\n").id)
        lab.client.wait(lab.submit("head -c 300000 /dev/zero | tr '\\0' x\n").id)
        stopped = lab.submit("trap '' TERM; echo up; while :; do sleep 0.2; done\n", grace=0.5)
        attempt = stopped.tasks[0].attempt
        wait_until(lambda: b"".join(lab.client.raw_log(attempt)), "it to be up")
        lab.client.stop_run(stopped.id)
        lab.client.wait(stopped.id)
        cut = lab.submit("for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.5; done\n")
        wait_until(lambda: b"".join(lab.client.raw_log(cut.tasks[0].attempt)), "a first line")
        relay.cut()
        lab.client.wait(cut.id)
        lab.agents["node-1"].stop()
        relay.end()


if __name__ == "__main__":
    record(Path(sys.argv[1]), Path(sys.argv[2]))
