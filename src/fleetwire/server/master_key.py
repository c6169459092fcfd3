"""The master key: what the secrets in the record are encrypted with (AES-256-GCM), those of second
factors too.

It stands in a file of its own, 0600, made when it is first needed, or in the environment
(`FLEETWIRE_SERVER_MASTER_KEY`). Whoever has the record without it has nothing. It is in no backup
(`server.backup`): keep a copy apart. App gives it to the API and to dispatch, never to the gateway.

Changed by `fleetwire server rotate-master-key`: the next key is made durable beside the old one
(`master-key.next`), all secrets are encrypted anew in one transaction, and then it takes the old
one's name. After a crash anywhere in between both keys are there, and each secret names its own.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fleetwire.core.errors import FleetwireError
from fleetwire.core.secrets import Box
from fleetwire.server.files import sync, write_private

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_FILE: Final = "master-key"
KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12


class BadMasterKey(FleetwireError):
    """The master key cannot be used, or a secret was encrypted with another."""

    code = "bad-master-key"


class BadSealingKey(FleetwireError):
    """A node's X25519 key is no key."""

    code = "bad-sealing-key"


class MasterKeys:
    """The key in use, and one that is on its way in or out. `path` is where the key stands, or is
    put when it is first needed; None where it was given by the environment.
    """

    def __init__(self, path: Path | None, current: bytes | None, following: bytes | None) -> None:
        self._path = path
        self._current = current
        self._next = following

    @staticmethod
    def open(path: Path, given: str | None) -> MasterKeys:
        """Return the keys of a server. `given`: the key from the environment, which wins.

        Raises BadMasterKey where a file is open to others or is no key.
        """
        if given is not None:
            return MasterKeys(None, _decode(given, "FLEETWIRE_SERVER_MASTER_KEY"), None)
        return MasterKeys(path, _read(path), _read(_next_of(path)))

    @property
    def ids(self) -> frozenset[str]:
        """The ids of the keys that are here."""
        return frozenset(_id(key) for key in (self._current, self._next) if key is not None)

    def check(self, needed: Collection[str]) -> None:
        """Raise BadMasterKey unless all these keys are here: then no secret could be used, and a
        new key would hide that.
        """
        missing = sorted(set(needed) - self.ids)
        if missing:
            where = self._path or "FLEETWIRE_SERVER_MASTER_KEY"
            raise BadMasterKey(
                f"The record holds secrets that are encrypted with the master key {missing[0]}, "
                f"which is not in {where}.",
                hint="Put the key back where it was (--master-key-file FILE names another place). "
                "If it is lost for good: `fleetwire server forget-secrets` deletes all secrets "
                "and second factors.",
            )

    def seal(self, value: bytes, context: bytes) -> Box:
        """Encrypt; `context` must be the same when it is opened. The first call makes the key."""
        key = self._key()
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return Box(_id(key), nonce, _gcm(key).encrypt(nonce, value, context))

    def unseal(self, box: Box, context: bytes) -> bytes:
        """Decrypt. Raises BadMasterKey where key, context or box is another."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 (many have no secrets)

        keys = {_id(key): key for key in (self._current, self._next) if key is not None}
        try:
            return _gcm(keys[box.key_id]).decrypt(box.nonce, box.data, context)
        except (KeyError, InvalidTag, ValueError):
            raise BadMasterKey(
                "A secret cannot be decrypted: the master key is another, or the record was "
                "changed by other means.",
                hint="Put the right key back, or set the secret again.",
            ) from None

    def begin_rotation(self) -> MasterKeys:
        """Return keys that encrypt with a new key, which is durable from now on. Called again
        after a crash it is the same one.
        """
        if self._path is None:
            raise BadMasterKey(
                "The master key is given by the environment, so it cannot be changed here.",
                hint="Write it to a file (base64, mode 0600), name that with --master-key-file, "
                "and rotate it there.",
            )
        following = self._next
        if following is None:
            following = secrets.token_bytes(KEY_BYTES)
            _write(_next_of(self._path), following)
        return MasterKeys(self._path, following, self._current)

    def settle(self, needed: Collection[str]) -> None:
        """End a rotation that was cut short, or has just been done. `needed`: the ids of the keys
        that the record names.
        """
        if self._path is None:
            return
        old, new = _read(self._path), _read(_next_of(self._path))
        if new is None:
            return
        if old is None or _id(old) not in needed:
            _next_of(self._path).replace(self._path)
            sync(self._path.parent)
            self._current, self._next = new, None
        elif _id(new) not in needed:
            _next_of(self._path).unlink()
            self._current, self._next = old, None

    def _key(self) -> bytes:
        if self._current is None:
            if self._path is None:
                raise AssertionError("a key from the environment is there from the beginning")
            self._current = secrets.token_bytes(KEY_BYTES)
            _write(self._path, self._current)
        return self._current


def _gcm(key: bytes) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 (as above)

    return AESGCM(key)


def _id(key: bytes) -> str:
    return hashlib.sha256(b"fleetwire master key\n" + key).hexdigest()[:16]


def _next_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.next")


def _decode(text: str, where: str) -> bytes:
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise BadMasterKey(
            f"{where} is no master key: {KEY_BYTES} bytes in base64 are needed.",
            hint="openssl rand -base64 32",
        )
    return key


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            text = file.read(4096)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadMasterKey(
            f"{path} cannot be read: {error.strerror}.", hint="Mend its owner or its rights."
        ) from error
    if mode & 0o077:
        raise BadMasterKey(
            f"{path} may be read by others (mode {mode:04o}).",
            hint=f"If nobody has read it: chmod 600 {path}.",
        )
    return _decode(text.decode("ascii", "replace"), str(path))


def _write(path: Path, key: bytes) -> None:
    write_private(path, base64.b64encode(key) + b"\n")


def seal_for_node(key: bytes, content: bytes) -> bytes:
    """Return the content sealed to a node's X25519 key (a libsodium sealed box). Raises
    BadSealingKey: a hostile node may have enrolled with anything.
    """
    from nacl import bindings, exceptions  # noqa: PLC0415 (as above)

    try:
        return bindings.crypto_box_seal(content, key)
    except (exceptions.CryptoError, ValueError):
        raise BadSealingKey(
            "Nothing can be sealed for this node: the key it enrolled with is none.",
            hint="Delete the node and enrol it anew.",
        ) from None
