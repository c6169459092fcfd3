"""Who this node is: `identity.json`, 0600. It is written before a key in it is used, so that a
crash between the server's yes and ours cannot orphan a node.
"""

from __future__ import annotations

import os

import msgspec

from fleetwire.agent.errors import IdentityUnreadable
from fleetwire.agent.files import write_atomically

NAME = "identity.json"


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Keys are raw bytes (base64 in the file). `node` is empty until the server has said yes.

    `incarnation` is the random id of this state directory (architecture 5.3): a wiped one is
    another. `server_keys` maps key ids to the Ed25519 keys that may sign orders for this node.
    `signs_stops`: the server has said with its key that it signs stops, so no others are taken.
    """

    incarnation: str
    signing_seed: bytes
    signing_key: bytes
    sealing_secret: bytes
    sealing_key: bytes
    node: str = ""
    name: str = ""
    cluster: str = ""
    server_keys: dict[str, bytes] = {}
    signs_stops: bool = False

    @property
    def enrolled(self) -> bool:
        """Whether a server has taken this node in."""
        return bool(self.node)


def load(state: str) -> Identity | None:
    """Return the identity of a state directory, None when it has none yet."""
    path = os.path.join(state, NAME)
    try:
        with open(path, "rb") as file:
            return msgspec.json.decode(file.read(), type=Identity)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise IdentityUnreadable(
            f"{path} cannot be used: {error}.",
            hint="Restore it from a backup, or move the whole state directory away and enrol "
            "again: the node then gets a new identity.",
        ) from error


def save(state: str, identity: Identity) -> None:
    """Write the identity durably, readable by its owner only."""
    data = msgspec.json.format(msgspec.json.encode(identity), indent=2)
    write_atomically(os.path.join(state, NAME), data + b"\n", mode=0o600)
