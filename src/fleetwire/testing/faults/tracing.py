"""System calls of a running process made to fail, to be slow, or to be its last (strace).

`when=k` of strace counts for each thread by itself: the process dies at the first call that is the
k-th of its thread. A filter by path narrows that to the thread that writes those files.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from fleetwire.testing.faults.stage import NotRun
from fleetwire.testing.lab import wait_until

KILL: Final = "signal=KILL"
_ATTACHED: Final = re.compile(r"TracerPid:\s+([1-9]\d*)")


def check() -> None:
    """Raise NotRun where no process can be traced."""
    program = shutil.which("strace")
    if program is None:
        raise NotRun("strace is not installed (apt-get install strace)")
    tried = subprocess.run(
        [program, "-f", "-o", "/dev/null", program, "-V"], capture_output=True, check=False
    )
    if tried.returncode:
        raise NotRun("strace is not allowed to trace here (ptrace)")


class Tracer:
    """Attached to processes while the block runs; `calls` among theirs are tampered with.

    Args:
        pids: the processes.
        calls: names of system calls.
        action: what strace is to do, such as KILL, `error=EIO` or `delay_enter=200000` (us).
        when: which of the calls: `7`, `7+` or `7..9`.
        log: a file for what strace says.
        paths: only calls that touch these files; none: all.
        follow: threads and children as well.
    """

    def __init__(
        self,
        pids: Sequence[int],
        calls: Collection[str],
        action: str,
        when: str,
        log: Path,
        *,
        paths: Sequence[Path] = (),
        follow: bool = True,
    ) -> None:
        program = shutil.which("strace")
        if program is None:
            raise NotRun("strace is not installed")
        names = ",".join(sorted(calls))
        self.log = log
        self._pids = list(pids)
        self._kills = action == KILL
        self._follows = follow
        self._argv = [program, "-q", "-o", str(log), *(["-f"] if follow else [])]
        self._argv += ["-e", f"trace={names}", "-e", f"inject={names}:{action}:when={when}"]
        self._argv += [word for path in paths for word in ("-P", str(path))]
        self._argv += [word for pid in pids for word in ("-p", str(pid))]

    def __enter__(self) -> Self:
        self.log.unlink(missing_ok=True)
        with self.log.with_suffix(".said").open("wb") as said:
            self._process = subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )
        wait_until(self._attached, f"strace to attach to {self._pids}", within=20)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Detach; what is traced goes on."""
        if self._process.poll() is None:
            # After a kill strace would go on to wait for threads that are reaped with their
            # leader only, which is reaped by us.
            self._process.send_signal(signal.SIGKILL if self._kills else signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    @property
    def touched(self) -> int:
        """How often it has done its action."""
        text = self.log.read_bytes() if self.log.exists() else b""
        # A process that is killed at the entry of a call has no line of the call's end.
        return text.count(b"(INJECTED)") or text.count(b"killed by SIGKILL")

    @property
    def last(self) -> str:
        """The last call that it has seen, shortened."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        calls = [line for line in lines if "+++" not in line]
        return calls[-1][:160] if calls else ""

    def _attached(self) -> bool:
        if self._process.poll() is not None:
            said = self.log.with_suffix(".said").read_text(errors="replace").strip()
            raise NotRun(f"strace cannot attach: {said[-200:]}")
        return all(_is_traced(pid, threads=self._follows) for pid in self._pids)


def _is_traced(pid: int, *, threads: bool) -> bool:
    with contextlib.suppress(OSError):
        path = Path(f"/proc/{pid}")
        looked = list((path / "task").iterdir()) if threads else [path]
        return all(_ATTACHED.search((one / "status").read_text()) for one in looked)
    return True  # it has ended meanwhile
