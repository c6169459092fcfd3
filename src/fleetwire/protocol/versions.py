"""The protocol's version: one integer with a dated list of what each number means.

1   2026-11   first: challenge, hello, welcome, desired/observed, log chunks, heartbeats
"""

from __future__ import annotations

from typing import Final

from fleetwire.core import secrets

VERSION: Final = 1
OLDEST: Final = 1
SUBPROTOCOL: Final = "fleetwire.1"

# Prefer a new feature name to a new version: a peer that does not list it is not sent it.
ZSTD: Final = "zstd"
"""Log chunks travel compressed."""
BOUND: Final = "bound-hello"
"""The hello is signed over the CA that the node trusts, its step and both lists of features."""
ROTATION: Final = "new-keys"
"""The server tells which of its keys followed which (`messages.NewKeys`)."""
SECRETS: Final = secrets.FEATURE
"""Orders may have secrets, sealed for the node; it masks them in output (release 0.2.0)."""
CONFINE: Final = "confine"
"""Specs may name a user and limits (`run_as`, `resources`)."""
SIGNED_STOPS: Final = "signed-stops"
"""The server says with its key that it signs stops, and does; refusals of others are told."""
FEATURES: Final[tuple[str, ...]] = (ZSTD, BOUND, ROTATION, SECRETS, CONFINE, SIGNED_STOPS)


def common_version(offered: tuple[int, ...]) -> int | None:
    """Return the newest version that both sides speak, or None."""
    spoken = [version for version in offered if OLDEST <= version <= VERSION]
    return max(spoken, default=None)
