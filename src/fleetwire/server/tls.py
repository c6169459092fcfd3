"""TLS of the server: which certificate it shows, and how that is changed while it serves.

The one context lives as long as the process; a new certificate is loaded into it, so what is
connected stays, and who connects next is shown the new one. Where a new pair cannot be used, the
old one stays and the log says why: a half-copied file must not take a server down.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final, Protocol

import structlog

from fleetwire.core import pins
from fleetwire.core.errors import FleetwireError

LOOK_S: Final = 5.0
HANDSHAKE_S: Final = 10.0
"""Who has not finished the handshake by then is cut off."""

_log = structlog.get_logger("fleetwire.server")


class BadTls(FleetwireError):
    """A certificate or its key cannot be used."""

    code = "bad-tls"


class Certificates:
    """What a server shows. `context` is for its sockets; `ca` is the certificate (PEM) that agents
    and clients are to pin, by its `fingerprint`; None where it is a CA that machines know anyway.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._seen = source.state()
        self._asked = asyncio.Event()
        self.context = _context()
        self.ca: str | None = None
        self.fingerprint: str | None = None
        self._load()

    def look_again(self) -> None:
        """Look at the files now, whatever they seem to be (SIGHUP)."""
        self._asked.set()

    async def run(self) -> None:
        """Follow the files until cancelled."""
        while True:
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._asked.wait()
            except TimeoutError:
                pass  # nobody asked: it is time to look
            is_asked = self._asked.is_set()
            self._asked.clear()
            try:
                self._source.renew()
                state = self._source.state()
                if state == self._seen and not is_asked:
                    continue
                self._seen = state
                self._load()
            except (FleetwireError, OSError) as error:
                _log.error("the certificate was not changed; the old one stays", error=str(error))
            else:
                _log.info("certificate loaded", file=str(self._source.certificate))

    def _load(self) -> None:
        """Take the pair as it is on the disk now. Raises BadTls, and nothing has changed then."""
        certificate, key = self._source.certificate, self._source.key
        ca = self._source.ca()
        for context in (_context(), self.context):  # the first is only to see whether it works
            try:
                context.load_cert_chain(certificate, key)
            except (OSError, ssl.SSLError) as error:
                raise BadTls(
                    f"The certificate {certificate} cannot be used with its key"
                    f"{f' {key}' if key else ''}: {error.strerror or error}.",
                    hint="The certificate (and what it is issued by) and its key have to belong "
                    "together, both PEM, the key without a password.",
                ) from error
        self.ca = ca
        self.fingerprint = None if ca is None else pins.fingerprint(ca)


class Source(Protocol):
    """Where a certificate comes from. `key` is None where it stands in the same file."""

    certificate: Path
    key: Path | None

    def ca(self) -> str | None:
        """Return the CA to pin (PEM), or None."""
        ...

    def state(self) -> object:
        """Return what changes whenever the files do."""
        ...

    def renew(self) -> None:
        """Make what has become due."""
        ...


class Given:
    """Files that an administrator keeps: a certificate with its chain, and its key. `ca` is the
    file of the CA to pin, where that is none that machines know and the chain does not end in it.
    """

    def __init__(self, certificate: Path, key: Path, ca: Path | None) -> None:
        self.certificate = certificate
        self.key: Path | None = key
        self._ca_file = ca

    def ca(self) -> str | None:
        """Return the CA that was named, else the last of the chain where it signed itself."""
        try:
            text = (self._ca_file or self.certificate).read_text("ascii", errors="replace")
        except OSError as error:
            raise BadTls(
                f"{self._ca_file or self.certificate} cannot be read: {error.strerror}."
            ) from error
        last = pins.certificates(text)[0 if self._ca_file else -1]
        pem = ssl.DER_cert_to_PEM_cert(last)
        return pem if self._ca_file or _signed_itself(pem) else None

    def state(self) -> object:
        """Return size, time and identity of the files."""
        return tuple(_stat(path) for path in (self.certificate, self.key, self._ca_file))

    def renew(self) -> None:
        """Do nothing: whoever made them renews them."""


class Own:
    """The server's own CA, and the certificate that it issues. `clock`: microseconds since 1970;
    `names` returns the names and addresses by which the server is reached now.
    """

    def __init__(
        self, data: Path, *, names: Callable[[], Collection[str]], clock: Callable[[], int]
    ) -> None:
        self._names = names
        self._clock = clock
        from fleetwire.server.authority import Authority  # noqa: PLC0415 - who has none pays nothing

        self._authority = Authority.open(data, now=clock())
        self.certificate = self._authority.path
        self.key: Path | None = None
        self.renew()

    def ca(self) -> str | None:
        """Return the own CA."""
        return self._authority.pem

    def state(self) -> object:
        """Return size, time and identity of the file."""
        return _stat(self.certificate)

    def renew(self) -> None:
        """Issue the certificate anew where that is due."""
        self._authority.renew(self._names(), now=self._clock())


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    return context


def _signed_itself(pem: str) -> bool:
    from cryptography import x509  # noqa: PLC0415 - only with a given certificate

    try:
        certificate = x509.load_pem_x509_certificate(pem.encode("ascii"))
    except ValueError as error:
        raise BadTls(f"The certificate cannot be read: {error}.") from error
    return certificate.issuer == certificate.subject


def _stat(path: Path | None) -> tuple[int, int, int] | None:
    try:
        found = None if path is None else path.stat()
    except OSError:
        return None
    return None if found is None else (found.st_mtime_ns, found.st_size, found.st_ino)
