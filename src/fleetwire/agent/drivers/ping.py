"""Ping: a real process that writes one line, by the same path as everything else."""

from __future__ import annotations

import shutil

from fleetwire.agent.drivers.base import Launch, Unable
from fleetwire.core.specs import Ping


def prepare(spec: Ping, task: str, search: str) -> Launch:  # noqa: ARG001 (every driver's signature)
    """Return `echo pong`."""
    echo = shutil.which("echo", path=search)
    if echo is None:
        raise Unable("echo is not installed on this node.", hint="Look at the agent's PATH.")
    return Launch(argv=(echo, "pong"))
