"""Time-based one-time passwords (RFC 6238: HMAC-SHA-1, six digits, 30 s), as every authenticator
app makes them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Final
from urllib.parse import quote, urlencode

STEP_S: Final = 30
DIGITS: Final = 6
SECRET_BYTES: Final = 20
WINDOW: Final = 1
"""So many steps before and after now are taken too: clocks differ (RFC 6238, 5.2)."""


def code_at(secret: bytes, step: int) -> str:
    """Return the code of a step (RFC 4226, 5.3)."""
    digest = hmac.digest(secret, step.to_bytes(8, "big"), hashlib.sha1)
    at = digest[-1] & 0xF
    number = int.from_bytes(digest[at : at + 4], "big") & 0x7FFF_FFFF
    return f"{number % 10**DIGITS:0{DIGITS}d}"


def step_of(now_us: int) -> int:
    """Return the step of a time, microseconds since 1970."""
    return now_us // (STEP_S * 1_000_000)


def accept(secret: bytes, code: str, now_us: int, last_step: int) -> int | None:
    """Return the step that a code is of, None where it is not good now.

    A step up to `last_step` was used already: nobody who saw a code can use it again.
    """
    now, found = step_of(now_us), None
    for step in range(now - WINDOW, now + WINDOW + 1):
        # All are compared, so that the time does not tell which it was.
        is_it = hmac.compare_digest(code_at(secret, step).encode(), code.encode("utf-8", "replace"))
        if is_it and step > last_step:
            found = step
    return found


def as_text(secret: bytes) -> str:
    """Return a secret as people type it."""
    return base64.b32encode(secret).decode().rstrip("=")


def from_text(text: str) -> bytes:
    """Return the secret that `as_text` wrote."""
    return base64.b32decode(text + "=" * (-len(text) % 8))


def uri(secret: bytes, *, account: str, issuer: str) -> str:
    """Return what an authenticator app reads from a QR code."""
    label = quote(f"{issuer}:{account}", safe="")
    return f"otpauth://totp/{label}?{urlencode({'secret': as_text(secret), 'issuer': issuer})}"
