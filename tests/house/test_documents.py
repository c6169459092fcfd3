"""The documents say what is true: commands exist, links lead somewhere, pins are complete."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fleetwire
from fleetwire.testing.faults.kinds import KINDS

DOCUMENTS = [
    "README.md",
    "ARCHITECTURE.md",
    "GLOSSARY.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "LICENSE",
    "docs/seams.md",
    "docs/limits.md",
    "docs/promises.md",
    "docs/reliability.md",
    "docs/decisions/README.md",
    "docs/checklists/README.md",
]


def said_commands(root: Path, program: str) -> set[str]:
    """Return the sub-commands of a program that the documents tell people to type."""
    pages = [root / name for name in DOCUMENTS if name.endswith(".md") and "seams" not in name]
    text = "\n".join(page.read_text() for page in pages)
    # in a code block, at the start of a line; in prose, in backticks
    return set(re.findall(rf"(?:^|`){re.escape(program)} ([a-z]+)", text, re.MULTILINE))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_document_exists(root: Path, name: str) -> None:
    assert (root / name).stat().st_size > 200


def test_commands_of_dev_exist(root: Path) -> None:
    said = said_commands(root, "./dev")
    assert {"up", "test", "check"} <= said
    for command in sorted(said):
        shown = subprocess.run(
            [root / "dev", "help", command], capture_output=True, text=True, check=True
        ).stdout
        assert shown.startswith(f"./dev {command}\n"), command


def test_commands_of_fleetwire_exist(root: Path) -> None:
    said = said_commands(root, "fleetwire")
    assert {"run", "nodes", "runs", "up"} <= said
    for command in sorted(said):
        argv = [sys.executable, "-m", "fleetwire.cli", command, "--help"]
        shown = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert shown.returncode == 0, f"fleetwire {command} --help: {shown.stderr}"


def test_links_lead_somewhere(root: Path) -> None:
    for page in [root / name for name in DOCUMENTS if name.endswith(".md")]:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_what_reliability_names_exists(root: Path) -> None:
    page = (root / "docs/reliability.md").read_text()
    named = set(re.findall(r"`(tests/[\w/.]+)`", page))
    assert len(named) > 20
    assert [name for name in sorted(named) if not (root / name).exists()] == []
    rounds = page.partition("## Rounds")[0].rpartition("## Promise by promise")[2]
    kinds = set(re.findall(r"`([a-z]+(?:-[a-z]+)+|network|drop|pause|spool|restored)`", rounds))
    assert kinds <= set(KINDS), kinds - set(KINDS)
    assert set(KINDS) - kinds <= {"soak"}, set(KINDS) - kinds


def test_every_decision_is_in_the_list(root: Path) -> None:
    folder = root / "docs/decisions"
    listed = re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", (folder / "README.md").read_text())
    assert listed == sorted(path.name for path in folder.glob("[0-9]*.md"))
    for name in listed:
        text = (folder / name).read_text()
        assert text.startswith(f"# {name[:4]}: ")
        assert re.search(r"^Status: (accepted|replaced by \d{4})$", text, re.MULTILINE)


def test_rules_that_the_sources_quote_exist(root: Path, tracked: list[Path]) -> None:
    """A source may say "architecture 5.7", "law 3" or "P4": the pages have these numbers."""
    page = (root / "ARCHITECTURE.md").read_text()
    sections = dict(re.findall(r"^## (\d+)\. .*\n((?:(?!## ).*\n?)*)", page, re.MULTILINE))
    numbered = {
        n: set(re.findall(r"^(\d+)\. ", text, re.MULTILINE)) for n, text in sections.items()
    }
    assert len(numbered["1"]) == 9
    assert len(numbered["5"]) == 16
    promises = set(
        re.findall(r"^- \*\*(P\d+) ", (root / "docs/promises.md").read_text(), re.MULTILINE)
    )
    for path in tracked:
        if path.suffix == ".py" and path.is_relative_to(root / "src"):
            text = path.read_text()
            quoted = set(re.findall(r"architecture (\d+)\.(\d+)", text))
            quoted |= {("1", n) for n in re.findall(r"\blaw (\d+)", text)}
            for section, rule in quoted:
                assert rule in numbered[section], f"{path.name} quotes {section}.{rule}"
            assert set(re.findall(r"\bP\d{1,2}\b", text)) <= promises, path.name


def test_pins_are_hashed_and_cover_the_dependencies(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())
    wanted = {
        "runtime.txt": project["project"]["dependencies"],
        "dev.txt": project["project"]["dependencies"] + project["dependency-groups"]["dev"],
    }
    for name, dependencies in wanted.items():
        text = (root / "requirements" / name).read_text()
        # an entry goes on in lines that begin with blanks
        entries = [entry for entry in re.split(r"\n(?=\S)", text) if "==" in entry]
        assert [entry for entry in entries if "--hash=sha256:" not in entry] == []
        pinned = {entry.split("==")[0].lower().replace("_", "-") for entry in entries}
        asked = {re.split(r"[\[<>=~! ]", entry)[0].lower() for entry in dependencies}
        assert asked <= pinned, name


def test_version_is_one(root: Path) -> None:
    version = re.search(
        r'^__version__ = "(.+)"$', (root / "src/fleetwire/__init__.py").read_text(), re.MULTILINE
    )
    assert version
    assert version[1] == fleetwire.__version__
