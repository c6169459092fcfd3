"""A whole system for the tests of this folder: `fleetwire up` with two agents, as a person has
it, in a data folder and with a profile of its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


def wait_until(holds: Callable[[], list[int]], *, patience: float = 20.0, what: str) -> list[int]:
    deadline = time.monotonic() + patience
    while not (value := holds()):
        assert time.monotonic() < deadline, f"not within {patience} s: {what}"
        time.sleep(0.02)
    return value


def fleetwire(*words: str) -> list[str]:
    return [sys.executable, "-m", "fleetwire.cli", *words]


def children_of(pid: int, word: str) -> list[int]:
    """Direct children whose command line holds the word."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            stat = (entry / "stat").read_text()
            command = (entry / "cmdline").read_bytes().split(b"\0")
        except (OSError, UnicodeDecodeError):
            continue
        parent = int(stat.rpartition(")")[2].split()[1])
        if parent == pid and word.encode() in command:
            found.append(int(entry.name))
    return found


class System:
    def __init__(self, root: Path, *, agents: int = 2, words: tuple[str, ...] = ()) -> None:
        self.root = root
        self.data = root / "data"
        self.environ = {
            **{
                key: value
                for key, value in os.environ.items()
                if "FLEETWIRE" not in key and key != "PYTHONDONTWRITEBYTECODE"
            },
            "XDG_CONFIG_HOME": str(root / "config"),
            # Many processes start here: they share what they compile, outside the sources.
            "PYTHONPYCACHEPREFIX": str(root.parent / "bytecode"),
        }
        self._port = "0"
        self._words = (
            "--data", str(self.data), "--agents", str(agents), "--output", "json", *words,
        )  # fmt: skip

    def start(self) -> None:
        """Start it, again where it was before: who waits for it looks for it there."""
        with (self.root / "up.err").open("ab") as err:
            self.up = subprocess.Popen(
                fleetwire("up", "--port", self._port, *self._words),
                env=self.environ,
                stdout=subprocess.PIPE,
                stderr=err,
            )
        assert self.up.stdout is not None
        line = self.up.stdout.readline()
        assert line, (self.root / "up.err").read_text()
        self.told = json.loads(line)
        self._port = self.told["url"].rpartition(":")[2]
        assert self.told["online"]

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.up.send_signal(number)
        code = self.up.wait(30)
        assert self.up.stdout is not None
        self.up.stdout.close()
        return code

    def child(self, word: str) -> int:
        return wait_until(lambda: children_of(self.up.pid, word), what=f"a child {word}")[0]

    def popen(self, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            fleetwire(*words), env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def __call__(self, *words: str, stdin: bytes | None = None) -> subprocess.CompletedProcess:
        return subprocess.run(
            fleetwire(*words), env=self.environ, capture_output=True, timeout=60, input=stdin,
            check=False,
        )  # fmt: skip

    def json(self, *words: str) -> Any:
        cut = words.index("--") if "--" in words else len(words)
        done = self(*words[:cut], "--output", "json", *words[cut:])
        assert done.stdout, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Shared by tests that leave it as it is."""
    made = System(tmp_path_factory.mktemp("system"))
    made.start()
    yield made
    assert made.stop() == 0


@pytest.fixture
def own_system(tmp_path: Path) -> Iterator[System]:
    """For tests that kill parts of it."""
    made = System(tmp_path, agents=1)
    made.start()
    yield made
    if made.up.poll() is None:
        made.stop()
