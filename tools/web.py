"""Run a script of web/package.json with the Node that builds the console (see hatch_build.py).

    python tools/web.py SCRIPT [ARGUMENT ...]

What it prints and its exit code are the script's own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from hatch_build import installed_node, wheel_node  # noqa: E402  # it stands outside the package


def main(script: str, *arguments: str) -> int:
    """Run one script; its dependencies have been installed by the build."""
    node = installed_node() or wheel_node()
    if node is None or not (ROOT / "web/node_modules").is_dir():
        sys.exit("The console's tools are not installed here: run ./dev console first.")
    path = os.pathsep.join([str(node.node.parent), os.environ.get("PATH", os.defpath)])
    argv = [str(node.node), str(node.npm_cli), "run", "--silent", script, "--", *arguments]
    return subprocess.call(argv, cwd=ROOT / "web", env={**os.environ, "PATH": path})


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
