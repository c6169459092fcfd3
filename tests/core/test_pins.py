from __future__ import annotations

import hashlib
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetwire.core import pins

DER = b"0\x82made up, but what is pinned is its bytes" * 9
PEM = ssl.DER_cert_to_PEM_cert(DER)
PIN = f"sha256:{hashlib.sha256(DER).hexdigest()}"


def test_one_way_to_write_it_and_others_are_read() -> None:
    digits = PIN.removeprefix("sha256:")
    shown = ":".join(digits[i : i + 2] for i in range(0, 64, 2)).upper()
    for text in (PIN, digits, f" {PIN}\n", f"SHA256:{shown}", shown):
        assert pins.parse(text) == PIN


@pytest.mark.parametrize(
    "text", ["", "sha256:", PIN[:-1], PIN + "0", "md5:" + "0" * 64, "sha256:" + "g" * 64, "x" * 999]
)
def test_what_is_no_fingerprint_is_refused(text: str) -> None:
    with pytest.raises(pins.BadFingerprint):
        pins.parse(text)


@given(st.binary(min_size=1, max_size=3000), st.text(max_size=200))
def test_what_is_shown_is_found_whatever_stands_around_it(der: bytes, around: str) -> None:
    pem = ssl.DER_cert_to_PEM_cert(der)
    pin = pins.fingerprint(pem)
    assert pin == f"sha256:{hashlib.sha256(der).hexdigest()}"
    shown = around.replace("-", "") + "\n" + pem + around
    assert ssl.PEM_cert_to_DER_cert(pins.check(shown, pin, server="x")) == der


@given(st.text(max_size=400))
def test_no_text_passes_for_another_ca(text: str) -> None:
    for shown in (text, PEM.replace("M", "N", 1), f"-----BEGIN CERTIFICATE-----\n{text}"):
        with pytest.raises(pins.WrongAuthority):
            pins.check(shown, PIN, server="https://x")


def test_only_the_first_certificate_is_pinned_and_kept() -> None:
    other = ssl.DER_cert_to_PEM_cert(b"another one")
    assert pins.check(PEM + other, PIN, server="x") == pins.check(PEM, PIN, server="x")
    with pytest.raises(pins.WrongAuthority, match="not the pinned one"):
        pins.check(other + PEM, PIN, server="x")
