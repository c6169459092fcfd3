"""What the house tests look at: the tracked files, and the sources as syntax trees."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def tracked(root: Path) -> list[Path]:
    """Every file of the project: what git tracks, and what it would track at the next commit."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607
        cwd=root, capture_output=True, check=True, text=True,
    ).stdout.split("\0")  # fmt: skip
    files = [root / name for name in listed if name and (root / name).is_file()]
    assert files, "git knows of no file: is this a checkout?"
    return files


@pytest.fixture(scope="session")
def sources(root: Path) -> dict[str, ast.Module]:
    """Every module of the package: its dotted name and its syntax tree."""
    src = root / "src"
    found = {}
    for path in sorted((src / "fleetwire").rglob("*.py")):
        parts = path.relative_to(src).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


@pytest.fixture(scope="session")
def imports(sources: dict[str, ast.Module]) -> dict[str, set[str]]:
    """What each module imports, at any depth of its code: dotted names."""
    return {name: set(_imported(tree)) for name, tree in sources.items()}


def _imported(tree: ast.Module) -> list[str]:
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # ruff's ban-relative-imports sees to it that there is always a module
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names
