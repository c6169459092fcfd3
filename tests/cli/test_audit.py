"""`fleetwire audit`, on a system that works."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fleetwire.cli import app
from fleetwire.core import audit

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
        assert b", all signed (20" in again.stdout
        assert system("audit", "verify", *words, "--known", str(path)).returncode == 0

    # A chain is whole in itself whoever made it: a key of one's own says so.
    strange = base64.b64encode(bytes(32)).decode()
    for words in ((str(path),), ("--project", "default")):
        doubted = system("audit", "verify", *words, "--key", strange)
        assert doubted.returncode == 1
        assert b"NOT TO BE TRUSTED" in doubted.stdout
        assert b"nothing of it is signed by that key" in doubted.stdout
        shown = system("audit", "verify", *words, "--key", strange, "--output", "json")
        assert shown.returncode == 1
        (one,) = json.loads(shown.stdout)["items"]
        assert (one["good"], one["signed"], one["signed_at"]) == (False, 0, None)

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


def test_an_export_that_anybody_can_make_up_is_no_success_with_a_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    act = audit.Act("login", audit.SERVER, "p")
    (made,) = audit.follow(audit.Head(0, audit.genesis("c", "p")), [act], at=1_700_000_000_000_000)
    entry = {
        "number": 1, "at": "2023-11-14T22:13:20.000Z", "action": "login",
        "actor": {"kind": "server"}, "hash": made.hash.hex(),
    }  # fmt: skip
    key = base64.b64encode(bytes(32)).decode()
    lines: list[dict[str, object]] = [
        {"fleetwire_audit": 1, "cluster": "c", "chain": "p", "key": key, "rotations": []},
        {"entry": entry},
        {"end": {"number": 1, "hash": made.hash.hex()}},
    ]
    path = tmp_path / "audit.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert app.run(["audit", "verify", str(path)]) == 0
    assert "none of them is signed yet" in capsys.readouterr().out
    assert app.run(["audit", "verify", str(path), "--key", key]) == 1
    assert "nothing of it is signed by that key" in capsys.readouterr().out


def test_a_key_and_a_file_that_are_none_are_told(tmp_path: Path) -> None:
    from fleetwire.client.audit import BadExport, Export, read_key  # noqa: PLC0415 - as the command

    with pytest.raises(BadExport, match="no public key"):
        read_key("bm9uZQ==")
    with pytest.raises(BadExport, match="cannot be read"):
        Export(tmp_path / "none")
