"""What a server process asks of its machine: open files as allowed, few of malloc's arenas."""

from __future__ import annotations

import resource
import subprocess
import sys
from typing import TYPE_CHECKING

from fleetwire.server import tuning

if TYPE_CHECKING:
    from pathlib import Path

SETTLE = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
from fleetwire.server.tuning import settle
settle()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_a_low_limit_of_open_files_is_raised_to_what_is_allowed() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    done = subprocess.run(
        [sys.executable, "-c", SETTLE], capture_output=True, text=True, check=True
    )
    soft, still_hard = map(int, done.stdout.split())
    assert still_hard == hard
    assert soft == hard or soft >= 1 << 20


THREADS = """
import ctypes, sys, threading
from fleetwire.server.tuning import settle
settle()
ready, done = threading.Barrier(9), threading.Event()
def allocate():
    kept = [bytes(100_000) for _ in range(10)]  # too large for Python's own allocator
    ready.wait()
    done.wait()
threads = [threading.Thread(target=allocate) for _ in range(8)]
for thread in threads:
    thread.start()
ready.wait()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
told = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, told)
libc.fclose(told)
done.set()
"""


def test_threads_share_arenas(tmp_path: Path) -> None:
    told = tmp_path / "malloc.xml"
    subprocess.run([sys.executable, "-c", THREADS, told], check=True)
    assert 1 <= told.read_text().count("<heap nr=") <= tuning.ARENAS
