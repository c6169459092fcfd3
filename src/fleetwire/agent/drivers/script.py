"""Scripts, run by their interpreter from a file: never in argv, where everybody could read it."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Final

from fleetwire.agent.drivers.base import Launch, Unable
from fleetwire.core.specs import Script, Shell

# The first that is there is taken.
_INTERPRETERS: Final[dict[Shell, tuple[tuple[str, ...], ...]]] = {
    "sh": (("/bin/sh",), ("sh",)),
    "bash": (("bash",),),
    "python": (("python3",), ("python",), (sys.executable,)),
    "powershell": (
        ("pwsh", "-NoLogo", "-NonInteractive", "-File"),
        ("powershell", "-NoLogo", "-NonInteractive", "-ExecutionPolicy", "Bypass", "-File"),
    ),
}
_SUFFIX: Final[dict[Shell, str]] = {"powershell": ".ps1"}  # it runs no file of another name
# A program whose stdout is a file or pipe buffers in blocks, and nobody would see it live.
_ENV: Final[dict[Shell, dict[str, str]]] = {"python": {"PYTHONUNBUFFERED": "1"}}


def prepare(spec: Script, task: str, search: str) -> Launch:
    """Return the interpreter with the script's path and its arguments."""
    name = f"script{_SUFFIX.get(spec.shell, '')}"
    path = os.path.join(task, name)
    return Launch(
        argv=(*_interpreter(spec.shell, search), path, *spec.args),
        env={**_ENV.get(spec.shell, {}), **spec.env},
        files={name: spec.script.encode()},
        tty=spec.tty,
    )


def _interpreter(shell: Shell, search: str) -> tuple[str, ...]:
    for program, *options in _INTERPRETERS[shell]:
        if program and (found := shutil.which(program, path=search)):
            return (found, *options)
    raise Unable(
        f"{shell} is not installed on this node.",
        hint="Install it, or choose another shell or another node.",
    )
