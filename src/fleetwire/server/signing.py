"""The server's Ed25519 key: it signs orders, so that no gateway, and nobody on the way, can make
one (promises, 2). App gives it to the loops that sign, never to the gateway.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

from nacl.signing import SigningKey

from fleetwire.core.errors import FleetwireError

KEY_FILE: Final = "server-key"
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
        try:
            return Signer(_read(path))
        except FileNotFoundError:
            _create(path)
            return Signer(_read(path))

    def sign(self, data: bytes) -> bytes:
        """Return the 64 bytes of signature over `data`."""
        return self._key.sign(data).signature


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


def _create(path: Path) -> None:
    """Write a new seed so that a crash leaves the whole file or none."""
    seed = bytes(SigningKey.generate())
    draft = path.with_name(path.name + ".tmp")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(seed)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
