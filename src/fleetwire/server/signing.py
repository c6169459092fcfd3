"""The server's Ed25519 key: it signs orders, so that no gateway, and nobody on the way, can make
one (promises, 2). App gives it to the loops that sign, never to the gateway.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

import msgspec
from nacl.signing import SigningKey

from fleetwire.core import limits
from fleetwire.core.envelopes import NewKey, SignedKey, key_bytes
from fleetwire.core.errors import FleetwireError
from fleetwire.server.files import sync, write_private

KEY_FILE: Final = "server-key"
NEXT_FILE: Final = "server-key.next"
CHAIN_FILE: Final = "server-keys.json"
_SEED_BYTES: Final = 32


class BadKeyFile(FleetwireError):
    """The file of the server's key cannot be used."""

    code = "bad-key-file"


class Signer:
    """Signs with the server's key. `key_id` is what orders name it by."""

    def __init__(self, seed: bytes) -> None:
        self._key = SigningKey(seed)
        self.public_key: bytes = bytes(self._key.verify_key)
        self.key_id: str = hashlib.sha256(self.public_key).hexdigest()[:16]

    @staticmethod
    def open(directory: Path) -> Signer:
        """Return the signer of this data directory; the first call makes its key (0600).

        Raises BadKeyFile where the file is open to others or is no key: a key that may be
        known elsewhere must not sign.
        """
        path = directory / KEY_FILE
        _finish(directory)
        try:
            return Signer(_read(path))
        except FileNotFoundError:
            write_private(path, bytes(SigningKey.generate()))
            return Signer(_read(path))

    def sign(self, data: bytes) -> bytes:
        """Return the 64 bytes of signature over `data`."""
        return self._key.sign(data).signature


class KeyChain(msgspec.Struct, frozen=True):
    """Which keys of the server followed which, oldest first, and the one that signs now. It holds
    no secret: a gateway has it.
    """

    chain: tuple[SignedKey, ...] = ()


def key_chain(directory: Path) -> tuple[SignedKey, ...]:
    """Return the rotations of this data directory, oldest first."""
    try:
        return msgspec.json.decode((directory / CHAIN_FILE).read_bytes(), type=KeyChain).chain
    except FileNotFoundError:
        return ()
    except (OSError, msgspec.MsgspecError) as error:
        raise BadKeyFile(
            f"{directory / CHAIN_FILE} cannot be read: {error}.",
            hint="Restore it from the backup: agents learn of a new key only by it.",
        ) from error


def rotate(directory: Path, *, cluster: str, now: int) -> Signer:
    """Make a new key in the place of the one that signs now, which vouches for it; return it. The
    old one is not kept: what it signed and is still to start is signed again at the next start.
    No server may use the directory meanwhile. Raises BadKeyFile.

    The word on the new key is given when the chain is written: a crash before that leaves all as it
    was, and after that whoever opens the directory next puts the new key in its place.
    """
    old = Signer.open(directory)
    seed = bytes(SigningKey.generate())
    new = Signer(seed)
    write_private(directory / NEXT_FILE, seed)
    word = NewKey(cluster, new.key_id, new.public_key, old.key_id, now)
    chain = (*key_chain(directory), SignedKey(word, old.sign(key_bytes(word))))
    if len(chain) > limits.SERVER_KEYS:
        raise BadKeyFile("The key was rotated too often.", hint="Enrol the nodes anew.")
    write_private(directory / CHAIN_FILE, msgspec.json.encode(KeyChain(chain)))
    _finish(directory)
    return new


def _finish(directory: Path) -> None:
    """Put a new key in its place if the old one has given its word, else forget it."""
    path = directory / NEXT_FILE
    if not path.exists():
        return
    chain = key_chain(directory)
    if chain and chain[-1].new.id == Signer(_read(path)).key_id:
        path.rename(directory / KEY_FILE)
    else:
        path.unlink()
    sync(directory)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode & 0o777
        seed = file.read(_SEED_BYTES + 1)
    if mode & 0o077:
        raise BadKeyFile(
            f"{path} may be read by others (mode {mode:04o}).",
            hint=f"If nobody has read it: chmod 600 {path}.",
        )
    if len(seed) != _SEED_BYTES:
        raise BadKeyFile(
            f"{path} has {len(seed)} bytes, but a key has {_SEED_BYTES}.",
            hint="Restore it from the backup; agents trust only the key they enrolled with.",
        )
    return seed
