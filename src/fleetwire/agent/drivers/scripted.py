"""Scripted attempts: steps as data, played by a small program of its own process."""

from __future__ import annotations

import os
import sys
from typing import Final

import msgspec

from fleetwire.agent.drivers.base import Launch
from fleetwire.core.specs import Scripted

_PROGRAM: Final = os.path.join(os.path.dirname(__file__), "play.py")
_STEPS: Final = "steps.json"


def prepare(spec: Scripted, task: str, search: str) -> Launch:  # noqa: ARG001 (every driver's signature)
    """Return our own interpreter, isolated, with the player and the steps."""
    return Launch(
        argv=(sys.executable, "-I", "-S", _PROGRAM, os.path.join(task, _STEPS)),
        files={_STEPS: msgspec.json.encode(spec.steps)},
    )
