"""The node's keys, and the server's. PyNaCl's bindings only: they take 2 MiB less than its
classes, and `cryptography` takes several MiB more (docs/decisions names the measurement).

Imported where a key is first used; the agent starts to connect before it needs one.
"""

from __future__ import annotations

from typing import NamedTuple


class KeyPair(NamedTuple):
    """A private key (its 32-byte seed or scalar) and the public key that belongs to it."""

    private: bytes
    public: bytes


def make_signing_key() -> KeyPair:
    """Return a new Ed25519 key: the node proves with it who it is."""
    from nacl import bindings  # noqa: PLC0415 (see the module)

    public, secret = bindings.crypto_sign_keypair()
    return KeyPair(bindings.crypto_sign_ed25519_sk_to_seed(secret), public)


def make_sealing_key() -> KeyPair:
    """Return a new X25519 key: secrets for this node are sealed to it."""
    from nacl import bindings  # noqa: PLC0415 (see the module)

    public, secret = bindings.crypto_box_keypair()
    return KeyPair(secret, public)


def sign(seed: bytes, data: bytes) -> bytes:
    """Return the 64-byte Ed25519 signature of the data."""
    from nacl import bindings  # noqa: PLC0415 (see the module)

    _, secret = bindings.crypto_sign_seed_keypair(seed)
    return bindings.crypto_sign(data, secret)[:64]


def unseal(key: KeyPair, sealed: bytes) -> bytes | None:
    """Return what was sealed to the X25519 key (a libsodium sealed box), None where it was not."""
    from nacl import bindings, exceptions  # noqa: PLC0415 (see the module)

    try:
        return bindings.crypto_box_seal_open(sealed, key.public, key.private)
    except (exceptions.CryptoError, ValueError):  # ValueError: too short to be one
        return None


def verifies(public: bytes, data: bytes, signature: bytes) -> bool:
    """Say whether the signature of the data was made by the key."""
    from nacl import bindings, exceptions  # noqa: PLC0415 (see the module)

    if len(signature) != 64 or len(public) != 32:
        return False
    try:
        bindings.crypto_sign_open(signature + data, public)
    except exceptions.BadSignatureError:
        return False
    return True
