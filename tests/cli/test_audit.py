"""`fleetwire audit`, on a system that works."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import System


@pytest.mark.slow
def test_what_was_done_is_listed_exported_and_verified(system: System, tmp_path: Path) -> None:
    ran = system("run", "--on", "os=linux", "--", "echo hi")
    assert ran.returncode == 0, ran.stderr
    shown = system("audit", "--action", "run.*", "--limit", "5").stdout.decode()
    assert shown.splitlines()[0].split()[:4] == ["WHEN", "WHO", "FROM", "ACTION"]
    assert "run.create" in shown
    assert "admin" in shown
    assert "login" in system("audit", "--system").stdout.decode()
    (line, *_) = system(
        "audit", "list", "--action", "run.create", "--output", "jsonl"
    ).stdout.splitlines()
    assert json.loads(line)["action"] == "run.create"
    assert b"no such entry" in system("audit", "--actor", "nobody").stderr
    assert system("audit", "--outcome", "perhaps").returncode == 2

    said = system("audit", "verify")
    assert said.returncode == 0, said.stderr
    assert b"default: whole, " in said.stdout
    assert b"system: whole, " in said.stdout
    found = {one["name"]: one for one in system.json("audit", "verify")["items"]}
    assert found["default"]["good"]
    key = found["default"]["key"]
    for words in (("--project", "default"), ("--system",)):
        path = tmp_path / f"audit{len(words)}.jsonl"
        path.write_bytes(system("audit", "export", *words).stdout)
        again = system("audit", "verify", str(path), "--key", key)
        assert again.returncode == 0, again.stderr
        assert system("audit", "verify", *words, "--known", str(path)).returncode == 0

    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], *lines[3:]]))
    broken = system("audit", "verify", str(path), "--key", key)
    assert broken.returncode == 1
    assert b"BROKEN at entry 2 (removed)" in broken.stdout
    path.write_bytes(lines[0] + lines[1])
    cut = system("audit", "verify", str(path))
    assert (cut.returncode, b"not written to its end" in cut.stderr) == (2, True)
    other = system("audit", "verify", "--project", "default", "--known", str(path))
    assert (other.returncode, b"another chain" in other.stderr) == (2, True)
    for content in ("", "hello\n", '{"fleetwire_audit":2}\n'):
        path.write_text(content)
        bad = system("audit", "verify", str(path))
        assert (bad.returncode, b"no export of an audit" in bad.stderr) == (2, True)
    assert system("audit", "verify", str(path), "--key", "nonsense").returncode == 2


def test_a_key_and_a_file_that_are_none_are_told(tmp_path: Path) -> None:
    from fleetwire.client.audit import BadExport, Export, read_key  # noqa: PLC0415 - as the command

    with pytest.raises(BadExport, match="no public key"):
        read_key("bm9uZQ==")
    with pytest.raises(BadExport, match="cannot be read"):
        Export(tmp_path / "none")
