"""What the node must remember of the server's level: `level.json`.

A drain survives restarts of both sides (P12), so it is durable here before it is confirmed
(architecture 5.13). The highest generation seen travels in the hello (5.4). Apart from
identity.json, which holds keys and is better not rewritten.
"""

from __future__ import annotations

import os
from typing import get_args

import msgspec

from fleetwire.agent.files import write_atomically
from fleetwire.core.dispatch import AdminState

NAME = "level.json"


class Level(msgspec.Struct, frozen=True):
    """The newest revision of Desired that was applied, what it says of the node, and the
    highest epoch generation in any order of this server. `used`: no folder tells any more what
    began under an epoch up to this one, so none of them may begin (an order that somebody has kept
    is good until it expires).
    """

    revision: int = 0
    admin: AdminState = "active"
    generation: int = 0
    used: int = 0


def load(state: str) -> Level:
    """Return the remembered level; a file that cannot be read counts as none, because the
    server sends its level again on every connect.
    """
    try:
        with open(os.path.join(state, NAME), "rb") as file:
            return msgspec.json.decode(file.read(), type=Level)
    except (FileNotFoundError, msgspec.DecodeError):
        return Level()


def save(state: str, level: Level) -> None:
    """Write the level durably."""
    write_atomically(os.path.join(state, NAME), msgspec.json.encode(level))


def takes_starts(admin: AdminState) -> bool:
    """Say whether a node in this state may start attempts."""
    if admin not in get_args(AdminState):
        raise AssertionError(f"unknown admin state {admin}")
    return admin == "active"
