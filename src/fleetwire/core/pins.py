"""Pins: the fingerprint of a CA's certificate, by which a server is known before it is trusted.

Whoever dials a server with a CA of its own has nothing but this line, which an administrator
copied; so it is the whole SHA-256, and there is one way to write it: `sha256:` and 64 hex digits.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from typing import Final

from fleetwire.core.errors import FleetwireError

PREFIX: Final = "sha256:"
CA_PATH: Final = "/api/agents/ca"
"""Where a server shows the certificate that its fingerprint is of: to anybody, it is public."""
CA_BYTES: Final = 64 * 1024

_DIGITS: Final = re.compile(r"[0-9a-f]{64}")
_BLOCK: Final = re.compile(
    r"-----BEGIN CERTIFICATE-----\s+([A-Za-z0-9+/=\s]+?)-----END CERTIFICATE-----"
)


class BadFingerprint(FleetwireError):
    """What should be a fingerprint is none."""

    code = "bad-fingerprint"


class BadCertificate(FleetwireError):
    """What should be a certificate in PEM is none."""

    code = "bad-certificate"


class WrongAuthority(FleetwireError):
    """A server's CA is not the one that was pinned."""

    code = "wrong-ca"


def parse(text: str) -> str:
    """Return a fingerprint as it is stored and compared; colons and capitals, as other tools
    print them, are taken as well. Raises BadFingerprint.
    """
    digits = text.strip().lower().removeprefix(PREFIX).replace(":", "")
    if not _DIGITS.fullmatch(digits):
        raise BadFingerprint(
            f"{text[:100]!r} is not the fingerprint of a CA.",
            hint="It looks like sha256: and 64 hex digits; the server's console and "
            "`fleetwire tokens create --enrolment` show it.",
            field="ca_fingerprint",
        )
    return PREFIX + digits


def certificates(pem: str) -> list[bytes]:
    """Return the DER of each certificate in a PEM text, in order. Raises BadCertificate."""
    try:
        found = [binascii.a2b_base64(block) for block in _BLOCK.findall(pem)]
    except binascii.Error as error:
        raise BadCertificate(f"A certificate cannot be read: {error}.") from error
    if not found:
        raise BadCertificate("There is no certificate in it (PEM).")
    return found


def fingerprint(pem: str) -> str:
    """Return the fingerprint of the first certificate in a PEM text. Raises BadCertificate."""
    return PREFIX + hashlib.sha256(certificates(pem)[0]).hexdigest()


def check(pem: str, pinned: str, *, server: str) -> str:
    """Return the pinned certificate alone (PEM) where `server` has shown it. Raises
    WrongAuthority where it has shown another: nothing may be said to it then.
    """
    try:
        ours = certificates(pem)[0]
    except BadCertificate as error:
        raise WrongAuthority(
            f"{server} shows no CA certificate: {error.detail}",
            hint="Check the address: what answers there is no Fleetwire server with a CA to pin.",
        ) from error
    found = PREFIX + hashlib.sha256(ours).hexdigest()
    if found != pinned:
        raise WrongAuthority(
            f"The CA of {server} is not the pinned one: it has {found}, and {pinned} was pinned.",
            hint="Somebody may be in between, or the server was made anew. Compare with what the "
            "server's console shows, on a way that you trust; nothing was sent to it.",
        )
    body = binascii.b2a_base64(ours, newline=False).decode("ascii")
    lines = [body[start : start + 64] for start in range(0, len(body), 64)]
    return "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""])
