"""The server's key: made once, private, and the same for ever."""

from __future__ import annotations

from pathlib import Path

import pytest
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from fleetwire.server.signing import KEY_FILE, BadKeyFile, Signer


def test_the_key_is_made_once_and_stays(tmp_path: Path) -> None:
    first = Signer.open(tmp_path)
    again = Signer.open(tmp_path)
    assert (first.key_id, first.public_key) == (again.key_id, again.public_key)
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]
    signature = first.sign(b"order")
    VerifyKey(again.public_key).verify(b"order", signature)
    with pytest.raises(BadSignatureError):
        VerifyKey(again.public_key).verify(b"other", signature)


def test_a_key_that_others_may_read_does_not_sign(tmp_path: Path) -> None:
    Signer.open(tmp_path)
    (tmp_path / KEY_FILE).chmod(0o640)
    with pytest.raises(BadKeyFile):
        Signer.open(tmp_path)


def test_half_a_key_is_no_key(tmp_path: Path) -> None:
    path = tmp_path / KEY_FILE
    path.write_bytes(b"x" * 31)
    path.chmod(0o600)
    with pytest.raises(BadKeyFile):
        Signer.open(tmp_path)
    (tmp_path / (KEY_FILE + ".tmp")).write_bytes(b"left by a crash")
    path.unlink()
    assert len(Signer.open(tmp_path).public_key) == 32
