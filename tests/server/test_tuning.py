"""A server process takes the open files that its machine allows it."""

from __future__ import annotations

import resource
import subprocess
import sys

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
