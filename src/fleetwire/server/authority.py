"""The server's own CA, made at its first start (`--tls auto`), and the certificate that it issues.

{data}/tls/ (0700) holds `ca-key.pem` (0600), `ca.pem`, and `server.pem` (0600): the server's key,
its certificate and the CA's, in one file, so that a crash never leaves two that do not belong
together. Agents pin the CA, so the certificate may be renewed, and its names changed, as often as
one likes; a lost CA means that every agent has to be told of a new one.

ECDSA over P-256 throughout: Ed25519 would be refused by browsers.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Collection
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleetwire.core.errors import FleetwireError
from fleetwire.server.files import CA, CA_KEY, TLS_FOLDER, write_private

SERVER: Final = "server.pem"

CA_DAYS: Final = 20 * 365
SERVER_DAYS: Final = 90
RENEW_DAYS: Final = 30
EARLIER: Final = dt.timedelta(days=1)
"""Certificates begin so long before they are made: a node's clock may be behind."""


class BadAuthority(FleetwireError):
    """The files of the server's own CA cannot be used."""

    code = "bad-ca"


class Authority:
    """The CA of a data folder. `now` in its methods is microseconds since 1970."""

    def __init__(
        self, folder: Path, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate
    ) -> None:
        self._folder = folder
        self._key = key
        self._certificate = certificate

    @staticmethod
    def open(data: Path, *, now: int) -> Authority:
        """Return the CA of this data folder; the first call makes it. Raises BadAuthority."""
        folder = data / TLS_FOLDER
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            if not (folder / CA).exists():
                # Nobody has ever seen the certificate of a key that has none yet.
                _make(folder, now)
            return _read(folder)
        except OSError as error:
            raise BadAuthority(
                f"The server's own CA in {folder} cannot be used: {error.strerror}.",
                hint="Mend the folder's owner and rights.",
            ) from error

    @property
    def pem(self) -> str:
        """The CA's certificate."""
        return _pem(self._certificate)

    @property
    def path(self) -> Path:
        """The file with the server's key, its certificate and the CA's."""
        return self._folder / SERVER

    def renew(self, names: Collection[str], *, now: int) -> bool:
        """Issue the server's certificate anew where it is missing, ends soon, or does not name
        exactly these hosts and addresses; say whether that was so.
        """
        if self._is_good(names, now):
            return False
        key = ec.generate_private_key(ec.SECP256R1())
        begins, at = _moment(now) - EARLIER, _moment(now)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name("Fleetwire server"))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(at + dt.timedelta(days=SERVER_DAYS))
            .add_extension(_alternatives(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        write_private(self.path, (_key_pem(key) + _pem(certificate) + self.pem).encode())
        return True

    def _is_good(self, names: Collection[str], now: int) -> bool:
        try:
            text = self.path.read_bytes()
            certificate = x509.load_pem_x509_certificate(text)
            serialization.load_pem_private_key(text, None)
            certificate.verify_directly_issued_by(self._certificate)
            found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except (OSError, ValueError, TypeError, x509.ExtensionNotFound):
            return False
        except Exception as error:  # noqa: BLE001 - InvalidSignature has no narrower home
            del error
            return False
        left = certificate.not_valid_after_utc - _moment(now)
        return left > dt.timedelta(days=RENEW_DAYS) and found.value == _alternatives(names)


def _make(folder: Path, now: int) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    # A name of its own, so that who has seen two of them can tell them apart.
    name = _name(f"Fleetwire CA {serial:040x}"[:29])
    at = _moment(now)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(at - EARLIER)
        .not_valid_after(at + dt.timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_private(folder / CA_KEY, _key_pem(key).encode())
    write_private(folder / CA, _pem(certificate).encode())


def _read(folder: Path) -> Authority:
    path = folder / CA_KEY
    try:
        if path.stat().st_mode & 0o077:
            raise BadAuthority(
                f"{path} may be read by others.", hint=f"If nobody has read it: chmod 600 {path}."
            )
        key = serialization.load_pem_private_key(path.read_bytes(), None)
        certificate = x509.load_pem_x509_certificate((folder / CA).read_bytes())
    except (OSError, ValueError, TypeError) as error:
        raise BadAuthority(
            f"The server's own CA in {folder} cannot be read: {error}.",
            hint="Restore the folder from a backup: agents trust no other CA than the one that "
            "they have pinned.",
        ) from error
    if (
        not isinstance(key, ec.EllipticCurvePrivateKey)
        or key.public_key() != certificate.public_key()
    ):
        raise BadAuthority(
            f"{CA_KEY} and {CA} in {folder} do not belong together.",
            hint="Restore both from the same backup.",
        )
    return Authority(folder, key, certificate)


def _alternatives(names: Collection[str]) -> x509.SubjectAlternativeName:
    found: list[x509.GeneralName] = []
    for name in sorted(names):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return x509.SubjectAlternativeName(found)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _moment(now: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(now // 1_000_000, dt.UTC)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode("ascii")
