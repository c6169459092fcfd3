"""Passwords: argon2id, always in a thread, the same work for an unknown user as for a wrong one."""

from __future__ import annotations

import asyncio
from typing import Final

import argon2
from argon2.exceptions import InvalidHashError, VerificationError

AT_ONCE: Final = 2
"""Verifications at the same time: each takes 64 MiB and most of a core (RFC 9106, low memory)."""


class Passwords:
    """Makes and checks password hashes. One per process."""

    def __init__(self, hasher: argon2.PasswordHasher | None = None) -> None:
        self._hasher = hasher or argon2.PasswordHasher()
        self._places = asyncio.Semaphore(AT_ONCE)
        self._nobody = _nobody(self._hasher)

    def hash_blocking(self, password: str) -> str:
        """Return the hash of a password; takes a tenth of a second of a core."""
        return self._hasher.hash(password)

    async def matches(self, password: str, stored: str | None) -> bool:
        """Tell whether the password is the stored one; `stored` is None for an unknown user.

        Takes equally long whichever is wrong. Cancelling is safe.
        """
        async with self._places:
            return await asyncio.to_thread(self._matches, password, stored)

    def _matches(self, password: str, stored: str | None) -> bool:
        try:
            # Nobody's hash is verified like a real one: the time says nothing about who exists.
            return self._hasher.verify(stored or self._nobody, password)
        except (VerificationError, InvalidHashError):
            return False


def _nobody(hasher: argon2.PasswordHasher) -> str:
    """Return a hash of today's parameters that no password has."""
    salt, digest = "A" * 22, "A" * 43  # 16 and 32 zero bytes
    return (
        f"$argon2id$v=19$m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
        f"${salt}${digest}"
    )
