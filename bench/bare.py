"""What the machine does with nothing of ours in the way."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.figures import percentile


def spawn(script: Path) -> None:
    """Start `sh script` with posix_spawn and wait for it."""
    pid = os.posix_spawn("/bin/sh", ["sh", str(script)], {"PATH": os.defpath})
    os.waitpid(pid, 0)


def no_op_script(folder: Path) -> Path:
    """Return a script that does nothing."""
    script = folder / "true.sh"
    script.write_text("true\n")
    return script


def spawns_per_second(seconds: float = 3.0) -> float:
    """Return how many no-op scripts a bare posix_spawn loop runs in a second, one at a time."""
    with tempfile.TemporaryDirectory() as folder:
        script = no_op_script(Path(folder))
        begin = time.perf_counter()
        count = 0
        while time.perf_counter() - begin < seconds:
            spawn(script)
            count += 1
        return count / (time.perf_counter() - begin)


def durable_spawn_ms(syncs: int, times: int = 100) -> float:
    """Return the p50, in ms, of a bare spawn plus that many small durable writes in a row."""
    took = []
    with tempfile.TemporaryDirectory() as folder:
        script = no_op_script(Path(folder))
        with (Path(folder) / "journal").open("ab", buffering=0) as journal:
            for _ in range(times):
                begin = time.perf_counter()
                spawn(script)
                for _ in range(syncs):
                    journal.write(b"x" * 200)
                    os.fdatasync(journal.fileno())
                took.append((time.perf_counter() - begin) * 1000)
    return percentile(took, 0.5)


def interpreter_start_ms(times: int = 10) -> float:
    """Return the p50, in ms, of starting and ending a Python that does nothing."""
    took = []
    for _ in range(times):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-I", "-c", ""], check=True)
        took.append((time.perf_counter() - begin) * 1000)
    return percentile(took, 0.5)


def interpreter_pss_mib(code: str = "") -> float:
    """Return the PSS of an idle Python that has run `code`."""
    idle = f"{code}\nimport sys\nprint(flush=True)\nsys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", idle], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        return pss_mib(process.pid)


def pss_mib(pid: int) -> float:
    """Return a process's proportional set size."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("smaps_rollup has no Pss")


def private_mib(pid: int) -> float:
    """Return what a process has for itself."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def pipe_to_file_mb_s(writer: list[str]) -> float:
    """Return how fast a writer's output goes through a pipe into a file, hashed on the way."""
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("wb") as out:
        begin = time.perf_counter()
        digest = hashlib.sha256()
        size = 0
        with subprocess.Popen(writer, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            while block := process.stdout.read1(1 << 20):
                digest.update(block)
                out.write(block)
                size += len(block)
        os.fdatasync(out.fileno())
        return size / 1e6 / (time.perf_counter() - begin)
