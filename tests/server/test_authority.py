"""The server's own CA: what it issues, when anew, and what it refuses to use."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from fleetwire.server import authority
from fleetwire.server.authority import Authority, BadAuthority
from fleetwire.server.files import CA, CA_KEY, TLS_FOLDER

NOW = 1_795_000_000_000_000
DAY = 86_400_000_000


def certificate(one: Authority) -> x509.Certificate:
    return x509.load_pem_x509_certificate(one.path.read_bytes())


def test_it_is_made_once_and_its_keys_are_private(tmp_path: Path) -> None:
    os.umask(0o022)
    first = Authority.open(tmp_path, now=NOW)
    assert first.renew({"a", "10.0.0.1", "fd00::1"}, now=NOW)
    assert Authority.open(tmp_path, now=NOW).pem == first.pem
    folder = tmp_path / TLS_FOLDER
    assert folder.stat().st_mode & 0o777 == 0o700
    for name in (CA_KEY, first.path.name):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(first.path)


def test_another_folder_has_another_ca(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    one, other = Authority.open(tmp_path, now=NOW), Authority.open(tmp_path / "b", now=NOW)
    assert one.pem != other.pem
    assert (
        x509.load_pem_x509_certificate(one.pem.encode()).subject
        != x509.load_pem_x509_certificate(other.pem.encode()).subject
    )


def test_it_is_renewed_when_it_ends_soon_and_when_names_change(tmp_path: Path) -> None:
    one = Authority.open(tmp_path, now=NOW)
    assert one.renew({"a"}, now=NOW)
    assert not one.renew({"a"}, now=NOW)
    lasts = (authority.SERVER_DAYS - authority.RENEW_DAYS) * DAY
    assert not one.renew({"a"}, now=NOW + lasts - 1_000_000)
    before = certificate(one).serial_number
    assert one.renew({"a"}, now=NOW + lasts + 1_000_000)
    assert certificate(one).serial_number != before
    assert one.renew({"a", "b"}, now=NOW + lasts)
    assert not one.renew({"b", "a"}, now=NOW + lasts)


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_spoilt_certificate_is_issued_anew(tmp_path: Path, content: bytes | None) -> None:
    one = Authority.open(tmp_path, now=NOW)
    one.renew({"a"}, now=NOW)
    if content is None:  # of another CA
        (tmp_path / "b").mkdir()
        other = Authority.open(tmp_path / "b", now=NOW)
        other.renew({"a"}, now=NOW)
        content = other.path.read_bytes()
    one.path.write_bytes(content)
    assert one.renew({"a"}, now=NOW)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(one.path)


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    Authority.open(tmp_path, now=NOW)
    (tmp_path / TLS_FOLDER / CA_KEY).chmod(0o640)
    with pytest.raises(BadAuthority, match="read by others"):
        Authority.open(tmp_path, now=NOW)


def test_a_ca_without_its_key_is_refused_and_not_made_anew(tmp_path: Path) -> None:
    pem = Authority.open(tmp_path, now=NOW).pem
    key = tmp_path / TLS_FOLDER / CA_KEY
    kept = key.read_bytes()
    key.unlink()
    with pytest.raises(BadAuthority, match="backup"):
        Authority.open(tmp_path, now=NOW)
    (tmp_path / "b").mkdir()
    Authority.open(tmp_path / "b", now=NOW)
    key.write_bytes((tmp_path / "b" / TLS_FOLDER / CA_KEY).read_bytes())
    key.chmod(0o600)
    with pytest.raises(BadAuthority, match="do not belong together"):
        Authority.open(tmp_path, now=NOW)
    key.write_bytes(kept)
    assert Authority.open(tmp_path, now=NOW).pem == pem


def test_a_start_that_was_cut_short_begins_again(tmp_path: Path) -> None:
    Authority.open(tmp_path, now=NOW)
    (tmp_path / TLS_FOLDER / CA).unlink()  # the key was written, its certificate not yet
    one = Authority.open(tmp_path, now=NOW)
    assert one.renew({"a"}, now=NOW)


def test_the_ca_may_issue_and_the_server_may_not(tmp_path: Path) -> None:
    one = Authority.open(tmp_path, now=NOW)
    one.renew({"a"}, now=NOW)
    ca = x509.load_pem_x509_certificate(one.pem.encode())
    for found, is_ca in ((ca, True), (certificate(one), False)):
        basic = found.extensions.get_extension_for_class(x509.BasicConstraints)
        usage = found.extensions.get_extension_for_class(x509.KeyUsage)
        assert (basic.critical, basic.value.ca, usage.value.key_cert_sign) == (True, is_ca, is_ca)
