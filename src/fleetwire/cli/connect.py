"""The client of a command: the chosen server with the chosen token."""

from __future__ import annotations

import os
from collections.abc import Callable

from fleetwire.cli import profile
from fleetwire.client import Client, fetch_ca


def connect(
    *, patience: float = 30.0, timeout: float = 30.0, notify: Callable[[str], None] | None = None
) -> Client:
    """Return a client for the environment and the current profile."""
    chosen = profile.chosen(os.environ)
    ca = chosen.ca
    if chosen.ca_fingerprint is not None:
        ca = pinned_ca(chosen.url, chosen.ca_fingerprint, ca)
    return Client(
        chosen.url, chosen.token, patience=patience, timeout=timeout, notify=notify, ca=ca
    )


def pinned_ca(url: str, fingerprint: str, known: str | None = None) -> str:
    """Return the CA (PEM) with this fingerprint: the known one, or the server's."""
    from fleetwire.core import pins

    if known is not None and pins.fingerprint(known) == pins.parse(fingerprint):
        return known
    return fetch_ca(url, fingerprint)
