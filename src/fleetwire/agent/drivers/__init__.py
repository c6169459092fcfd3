"""Drivers turn a spec into something to execute: argv, environment and files, nothing else.

Starting and watching it is the shim's, and is the same for all of them.
"""

from __future__ import annotations

from typing import Any, Final

from fleetwire.agent.drivers import ping, script, scripted
from fleetwire.agent.drivers.base import Driver, Launch, Unable
from fleetwire.core.specs import Ping, Script, Scripted, Spec

__all__ = ["Driver", "Launch", "Unable", "prepare"]

_DRIVERS: Final[dict[type[Spec], Driver[Any]]] = {
    Script: script.prepare,
    Ping: ping.prepare,
    Scripted: scripted.prepare,
}


def prepare(spec: Spec, *, task: str, search: str) -> Launch:
    """Return what to execute for this spec. `task` is the path of the attempt's working
    directory, `search` the PATH in which interpreters are looked for. Raises Unable.
    """
    return _DRIVERS[type(spec)](spec, task, search)
