"""`fleetwire secrets`, and `run --secret`: a value is never an argument."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import pytest

from fleetwire.cli.errors import UsageError
from fleetwire.cli.run import secret_use
from fleetwire.cli.secrets import _read
from fleetwire.core.secrets import SecretUse


def test_what_a_run_says_of_a_secret() -> None:
    assert secret_use("db") == SecretUse("db", "file", "db")
    assert secret_use("db=file:password") == SecretUse("db", "file", "password")
    assert secret_use("db=env:DB_PASSWORD") == SecretUse("db", "env", "DB_PASSWORD")


@pytest.mark.parametrize("text", ["db=hunter2-hunter2", "db=", "db=env:", "db=argument:hunter2-x"])
def test_a_value_that_was_typed_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        secret_use(text)
    assert "hunter2" not in str(caught.value)
    assert "fleetwire secrets set" in str(caught.value)


class Stdin(io.TextIOWrapper):
    def isatty(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("given", "value"),
    [
        (b"password\n", b"password"),
        (b"password\r\n", b"password"),
        (b"password", b"password"),
        (b"password\r", b"password\r"),
        (b"two\nlines\n\n", b"two\nlines\n"),
        (b"\xff\x00\n", b"\xff\x00"),
    ],
)
def test_one_newline_at_the_end_of_stdin_does_not_count(
    given: bytes, value: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin(io.BytesIO(given)))
    assert _read(None) == value


def test_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"key\n")
    assert _read(str(tmp_path / "key")) == b"key\n"
    with pytest.raises(UsageError, match="cannot be read"):
        _read(str(tmp_path / "none"))
