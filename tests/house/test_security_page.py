"""docs/security.md names its tests: each of them is there, and everybody has one who may not."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

# Those against whom it is built, as the first column of the page's first table names them.
ACTORS = (
    "anyone on the network", "thief of an enrolment token", "thief of a node's key",
    "a hostile node", "a low-privilege user", "an operator", "a hostile script on a node",
    "whoever ships an update",
)  # fmt: skip


@pytest.fixture(scope="module")
def tests(root: Path) -> dict[str, set[str]]:
    """The names of the tests in each file, by its path."""
    return {
        str(path.relative_to(root)): {
            node.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        for path in (root / "tests").rglob("test_*.py")
    }


def missing(page: str, root: Path, tests: dict[str, set[str]]) -> list[str]:
    """Return what a page names in backticks that is not there: paths, files, tests, tests in
    files.
    """
    everywhere = set().union(*tests.values())
    files = {Path(path).name for path in tests}
    wrong = []
    for said in re.findall(r"`((?:tests/|test_|::test_)[^`\s]*)`", page):
        path, _, name = said.partition("::")
        if name:
            known = tests.get(path, set()) if path else everywhere
            there = name in known
        elif "/" in path:
            there = (root / path).exists()
        else:
            there = path in (files if path.endswith(".py") else everywhere)
        if not there:
            wrong.append(said)
    return wrong


def test_every_test_that_the_page_names_is_there(root: Path, tests: dict[str, set[str]]) -> None:
    page = (root / "docs/security.md").read_text()
    assert len(re.findall(r"`[^`]*test_[^`]*`", page)) > 60
    assert missing(page, root, tests) == []


def test_a_test_that_has_gone_is_noticed(root: Path, tests: dict[str, set[str]]) -> None:
    page = (
        "`test_gone` `tests/core/test_gone.py` `test_gone.py` `::test_gone` "
        "`tests/core/test_access.py::test_gone` `tests/core/test_access.py::test_deny_by_default` "
        "`tests/core` `test_access.py` `test_deny_by_default` `::test_deny_by_default`"
    )
    assert len(missing(page, root, tests)) == 5


def test_each_who_may_not_has_a_mechanism_a_test_and_a_rest(root: Path) -> None:
    page = (root / "docs/security.md").read_text()
    table = page.partition("## Who, and by what he is tried")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    assert all(len(row) == 3 for row in rows), rows
    assert {row[0] for row in rows[1:]} == {*ACTORS, "all of them"}
    sections = set(re.findall(r"^## (.+)$", page, re.MULTILINE))
    for actor, tried, where in rows[1:]:
        assert "`tests/" in tried or "not built" in tried, actor
        named = re.findall(r"\[([^]]+)\]\(#[\w-]+\)", where)
        assert named, actor
        assert set(named) <= sections, actor
