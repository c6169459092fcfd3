"""What may not stand in any file of the repository."""

from __future__ import annotations

import re
from pathlib import Path

# Files that hold other people's text, or are made by a tool from pins.
NOT_OURS = {"LICENSE"}
BINARY = {".ico", ".png", ".woff2", ".gz", ".zst", ".bin"}
# A registry is named by whoever installs, never by a commit: pins are hashes, not addresses.
REGISTRY = re.compile(
    r"files\.pythonhosted\.org|pypi\.org/simple|test\.pypi\.org|registry\.npmjs|registry\.yarnpkg|"
    r"\"resolved\": *\"https?:|--index-url|--extra-index-url|--find-links"
)
HOME = re.compile(
    r"(?<![\w.{$/])/(?:home|Users)/[a-z][\w.-]*/|(?<![\w.{$/])/root/|[A-Z]:\\\\Users\\\\"
)
CONFESSION = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")


def lines(files: list[Path], root: Path) -> list[tuple[str, str]]:
    """Return (place, line) of every line of every text file but this one."""
    found = []
    for path in files:
        if path.suffix in BINARY or path.name in NOT_OURS or path == Path(__file__).resolve():
            continue
        text = path.read_bytes().decode("utf-8", "replace")
        name = path.relative_to(root)
        found += [(f"{name}:{n}", line) for n, line in enumerate(text.splitlines(), 1)]
    return found


def test_no_path_of_a_developers_machine(tracked: list[Path], root: Path) -> None:
    here = f"{root.parent}/"
    places = [
        place
        for place, line in lines(tracked, root)
        if HOME.search(line) or (len(root.parent.parts) > 1 and here in line)
    ]
    assert places == []


def test_no_registry_host(tracked: list[Path], root: Path) -> None:
    assert [place for place, line in lines(tracked, root) if REGISTRY.search(line)] == []


def test_no_lock_file_with_addresses(tracked: list[Path]) -> None:
    assert [path.name for path in tracked if path.name == "uv.lock"] == []


def test_nothing_left_to_do(tracked: list[Path], root: Path) -> None:
    code = [path for path in tracked if path.suffix in {".py", ".ts", ".vue", ".sh"}]
    assert [place for place, line in lines(code, root) if CONFESSION.search(line)] == []


def test_nothing_built_is_committed(tracked: list[Path], root: Path) -> None:
    built = ("node_modules/", "web/dist/", "src/fleetwire/server/api/static/console/", ".dev/")
    names = [str(path.relative_to(root)) for path in tracked]
    assert [name for name in names if any(part in name for part in built)] == []


def test_lint_rules_that_are_off_say_why(tracked: list[Path], root: Path) -> None:
    """An ignore in pyproject.toml has its reason on its line; a `noqa` names its rule."""
    config = (root / "pyproject.toml").read_text()
    ruff = config[config.index("[tool.ruff.lint]") : config.index("[tool.mypy]")]
    silent = re.findall(r'^  "[A-Z]+[0-9]*",(?! *# \S).*$', ruff, re.MULTILINE)
    assert silent == []
    python = [path for path in tracked if path.suffix == ".py"]
    bare = re.compile(r"#\s*noqa(?!: [A-Z])|#\s*type:\s*ignore(?!\[)")
    assert [place for place, line in lines(python, root) if bare.search(line)] == []
