"""The client of a command: the chosen server with the chosen token."""

from __future__ import annotations

import os
from collections.abc import Callable

from fleetwire.cli import profile
from fleetwire.client import Client


def connect(
    *, patience: float = 30.0, timeout: float = 30.0, notify: Callable[[str], None] | None = None
) -> Client:
    """Return a client for the environment and the current profile."""
    chosen = profile.chosen(os.environ)
    return Client(chosen.url, chosen.token, patience=patience, timeout=timeout, notify=notify)
