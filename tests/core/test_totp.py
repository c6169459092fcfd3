"""One-time passwords, against the vectors of RFC 6238 (appendix B, six digits)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetwire.core import totp

SECRET = b"12345678901234567890"
S = 1_000_000


@pytest.mark.parametrize(
    ("seconds", "code"),
    [
        (59, "287082"),
        (1111111109, "081804"),
        (1111111111, "050471"),
        (1234567890, "005924"),
        (2000000000, "279037"),
        (20000000000, "353130"),
    ],
)
def test_vectors_of_the_rfc(seconds: int, code: str) -> None:
    assert totp.code_at(SECRET, totp.step_of(seconds * S)) == code


@given(st.integers(0, 10**10), st.integers(-3, 3))
def test_one_step_around_now_is_taken_and_none_twice(seconds: int, off: int) -> None:
    now = (seconds + 100) * S
    step = totp.step_of(now) + off
    code = totp.code_at(SECRET, step)
    taken = totp.accept(SECRET, code, now, 0)
    assert (taken is not None) or abs(off) > totp.WINDOW
    if taken is not None:
        assert totp.code_at(SECRET, taken) == code
        again = totp.accept(SECRET, code, now, taken)
        assert again is None or again > taken


@given(st.text(max_size=10))
def test_other_texts_are_refused(code: str) -> None:
    good = {totp.code_at(SECRET, totp.step_of(59 * S) + off) for off in (-1, 0, 1)}
    assert (totp.accept(SECRET, code, 59 * S, 0) is not None) is (code in good)


@given(st.binary(min_size=1, max_size=32))
def test_a_secret_comes_back_from_its_text(secret: bytes) -> None:
    assert totp.from_text(totp.as_text(secret)) == secret


def test_what_an_app_reads() -> None:
    assert totp.uri(SECRET, account="ann", issuer="Fleetwire") == (
        "otpauth://totp/Fleetwire%3Aann?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Fleetwire"
    )
