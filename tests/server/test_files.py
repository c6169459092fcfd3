"""What holds secrets is written whole, for its owner alone."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from fleetwire.server import files
from fleetwire.server.files import write_private

if TYPE_CHECKING:
    from pathlib import Path


def test_a_private_file_is_its_owner_s_and_replaces_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "key"
    before = os.umask(0)
    try:
        for content in (b"\xff\0 bytes\n", b""):
            write_private(path, content)
            assert path.read_bytes() == content
            assert path.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)
    assert [one.name for one in tmp_path.iterdir()] == ["key"]


def test_a_private_file_is_whole_or_never_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no draft of a crash, whoever may read it, stands in the way of the next one."""
    path = tmp_path / "key"
    write_private(path, b"old")
    with monkeypatch.context() as patched:
        patched.setattr(files.os, "fsync", lambda _: os.read(-1, 1))
        with pytest.raises(OSError, match="Bad file descriptor"):
            write_private(path, b"new")
    assert path.read_bytes() == b"old"
    (draft,) = set(tmp_path.iterdir()) - {path}
    draft.chmod(0o644)
    write_private(path, b"newer")
    assert path.read_bytes() == b"newer"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]
