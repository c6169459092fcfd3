"""The console's build hook, with a stand-in for Node: when it builds, when not, how it fails."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]

NODE = """#!/bin/sh
# A stand-in for Node: says its version, else writes down what npm was asked for.
if [ "$1" = --version ]; then echo "$FAKE_VERSION"; exit; fi
shift
echo "$*" >> "$FAKE_LEDGER"
case "$PATH" in "${0%/*}:"*) ;; *) echo "PATH does not begin with Node's folder"; exit 9;; esac
if [ "$1" = "$FAKE_FAILS" ]; then echo "something is wrong with $1"; exit 7; fi
case "$1" in
  ci) mkdir -p node_modules ;;
  run) mkdir -p ../src/fleetwire/server/api/static/console ;;
esac
"""


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


hatch_build = _load()


class Project:
    """A small checkout, and what its hook asked of npm."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ledger = root / "ledger"

    def hook(self) -> object:
        return hatch_build.ConsoleHook(str(self.root), {}, None, None, str(self.root), "wheel")

    def build(self) -> list[str]:
        """Build, and return the npm commands that took."""
        self.ledger.write_text("")
        self.hook().initialize("standard", {})  # type: ignore[attr-defined]
        return [line.split()[0] for line in self.ledger.read_text().splitlines()]

    def needs(self) -> list[str]:
        return list(self.hook().dependencies())  # type: ignore[attr-defined]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    web = tmp_path / "web"
    (web / "src").mkdir(parents=True)
    for name in ("package.json", "package-lock.json", ".npmrc", "src/main.ts", "src/main.test.ts"):
        (web / name).write_text(name)
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "node").write_text(NODE)
    (folder / "node").chmod(0o755)
    (folder / "npm-cli.js").write_text("")
    (folder / "npm-cli.js").chmod(0o755)
    (folder / "npm").symlink_to("npm-cli.js")
    made = Project(tmp_path)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setenv("FAKE_VERSION", "v22.12.0")
    monkeypatch.setenv("FAKE_LEDGER", str(made.ledger))
    monkeypatch.setenv("FAKE_FAILS", "")
    monkeypatch.delenv(hatch_build.SKIP, raising=False)
    return made


def test_it_builds_once_and_then_only_what_changed(project: Project) -> None:
    assert project.build() == ["ci", "run"]
    assert project.build() == []
    (project.root / "web/src/main.ts").write_text("changed")
    assert project.build() == ["run"]
    (project.root / "web/package-lock.json").write_text("changed")
    assert project.build() == ["ci", "run"]


def test_tests_and_what_npm_wrote_do_not_make_it_stale(project: Project) -> None:
    project.build()
    (project.root / "web/src/main.test.ts").write_text("changed")
    (project.root / "web/node_modules/some.js").write_text("new")
    assert project.build() == []


def test_the_interface_is_a_source(project: Project) -> None:
    project.build()
    (project.root / "openapi").mkdir()
    (project.root / "openapi/fleetwire.json").write_text("{}")
    assert project.build() == ["run"]


def test_a_build_that_failed_is_tried_again(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE_FAILS", "ci")
    with pytest.raises(SystemExit):
        project.build()
    said = capsys.readouterr()
    assert "something is wrong with ci" in said.err
    assert "`npm ci --no-audit --no-fund` ended with 7" in said.err + said.out
    assert "FLEETWIRE_SKIP_CONSOLE=1" in said.err + said.out
    monkeypatch.setenv("FAKE_FAILS", "")
    assert project.build() == ["ci", "run"]


@pytest.mark.parametrize(
    ("version", "asks"), [("v22.11.9", True), ("v22.12.0", False), ("v24.0.0", False)]
)
def test_node_is_asked_for_where_the_installed_one_is_too_old(
    project: Project, monkeypatch: pytest.MonkeyPatch, version: str, asks: bool
) -> None:
    monkeypatch.setenv("FAKE_VERSION", version)
    assert project.needs() == ([hatch_build.NODE_WHEEL] if asks else [])


def test_node_is_not_asked_for_where_nothing_is_stale(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.build()
    monkeypatch.setenv("FAKE_VERSION", "v18.0.0")
    assert project.needs() == []


@pytest.mark.parametrize(
    ("value", "commands"), [("1", []), ("0", ["ci", "run"]), ("", ["ci", "run"])]
)
def test_the_switch(
    project: Project, monkeypatch: pytest.MonkeyPatch, value: str, commands: list[str]
) -> None:
    monkeypatch.setenv(hatch_build.SKIP, value)
    assert project.build() == commands


def test_an_sdist_without_the_sources_is_left_alone(project: Project) -> None:
    (project.root / "web").rename(project.root / "elsewhere")
    assert project.needs() == []
    assert project.build() == []
