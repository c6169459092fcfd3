"""A real server, and `fleetwire swarm` as a person starts it, beside it."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fleetwire.client import Run, RunRequest, Script
from fleetwire.testing.lab import PROGRAM, Lab, wait_until

AGENTS = 50


class Swarm:
    """The command's process and what it says; in JSON lines."""

    def __init__(self, lab: Lab, *flags: str, agents: int = AGENTS, state: str = "swarm") -> None:
        self.lab = lab
        self.lines: list[dict[str, Any]] = []
        self.process = subprocess.Popen(
            [
                *PROGRAM, "swarm", "--agents", str(agents), "--state", str(lab.folder / state),
                "--output", "jsonl", *flags,
            ],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=lab.env,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def wait(self, holds: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """Wait until a line is so; return it."""

        def look() -> list[dict[str, Any]]:
            assert self.process.poll() is None or any(map(holds, self.lines)), "it has ended"
            return [line for line in self.lines[-1:] if holds(line)]

        return wait_until(look, what)[0]

    def online(self, agents: int = AGENTS) -> dict[str, Any]:
        return self.wait(lambda line: line.get("online") == agents, f"{agents} agents online")

    def run(self, **spec: Any) -> Run:
        """Run a script on all agents, to its end."""
        client = self.lab.client
        request = RunRequest(Script("true", **spec), selector="swarm=yes")
        return client.wait(client.create_run(request).id)

    def refused(self) -> str:
        """Wait until it has ended by itself with code 1; return what it told."""
        wait_until(lambda: self.process.poll() is not None, "the end of the swarm")
        code, told = self.end()
        assert code == 1
        return told

    def end(self, number: int = signal.SIGINT) -> tuple[int, str]:
        """Stop it; return its exit code and what stands on its stderr."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        assert self.process.stderr is not None
        told = self.process.stderr.read()
        code = self.process.wait(20)
        self._reader.join()
        self.process.stderr.close()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code, told


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path) as made:
        made.start_server()
        yield made


@pytest.fixture
def swarm(lab: Lab) -> Iterator[Callable[..., Swarm]]:
    """Start swarms that do not outlive the test."""
    made: list[Swarm] = []

    def start(*flags: str, at: Lab | None = None, **more: Any) -> Swarm:
        made.append(Swarm(at or lab, *flags, **more))
        return made[-1]

    yield start
    for one in made:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()
        one._reader.join()
        for stream in (one.process.stdout, one.process.stderr):
            assert stream is not None
            stream.close()
