"""House rules that a linter cannot say, each with an example that breaks it."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Rule = Callable[[str, ast.Module], Iterator[str]]


def calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    """Every call, with the dotted name of what is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def commits_outside_the_store(module: str, tree: ast.Module) -> Iterator[str]:
    """Only the writer commits (architecture 5.11): a use case never ends its transaction."""
    rooms = ("fleetwire.server.durable", "fleetwire.server.store", "fleetwire.server.logs")
    if not module.startswith(rooms):
        for call, name in calls(tree):
            if name.rpartition(".")[2] in {"commit", "rollback"} and "." in name:
                yield f"{module}:{call.lineno} calls {name}"


def any_in_the_core(module: str, tree: ast.Module) -> Iterator[str]:
    """The core and the protocol know the type of everything they touch."""
    if module.startswith(("fleetwire.core", "fleetwire.protocol")):
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id == "Any":
                yield f"{module}:{node.lineno} uses Any"


def blocking_sleep_in_async(module: str, tree: ast.Module) -> Iterator[str]:
    """A blocking sleep inside `async def` stops every link of the process."""
    for function in ast.walk(tree):
        if isinstance(function, ast.AsyncFunctionDef):
            for call, name in calls(function):
                if name == "time.sleep":
                    yield f"{module}:{call.lineno} blocks the loop"


def heavy_import_at_cli_start(module: str, tree: ast.Module) -> Iterator[str]:
    """The command line's start-up is what people feel: heavy parts are imported where used."""
    heavy = {"httpx2", "rich", "fastapi", "uvicorn", "sqlalchemy", "pydantic"}
    if module.startswith("fleetwire.cli"):
        for node in tree.body:
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                if name.split(".")[0] in heavy:
                    yield f"{module}:{node.lineno} imports {name} at its top"


RULES: list[tuple[Rule, str, str]] = [
    (
        commits_outside_the_store,
        "fleetwire.server.domain.runs",
        "def submit(tx):\n    tx.connection.commit()\n",
    ),
    (
        any_in_the_core,
        "fleetwire.core.labels",
        "from typing import Any\ndef parse(value: Any) -> None: ...\n",
    ),
    (
        blocking_sleep_in_async,
        "fleetwire.agent.link",
        "async def wait() -> None:\n    time.sleep(1)\n",
    ),
    (heavy_import_at_cli_start, "fleetwire.cli.run", "from rich.console import Console\n"),
]


@pytest.mark.parametrize(("rule", "module", "broken"), RULES, ids=[r[0].__name__ for r in RULES])
def test_rule_finds_what_breaks_it(rule: Rule, module: str, broken: str) -> None:
    assert list(rule(module, ast.parse(broken)))


@pytest.mark.parametrize("rule", [r[0] for r in RULES], ids=[r[0].__name__ for r in RULES])
def test_sources_keep_the_rule(rule: Rule, sources: dict[str, ast.Module]) -> None:
    assert [place for name, tree in sources.items() for place in rule(name, tree)] == []


def sleeps(tree: ast.Module) -> Iterator[int]:
    """Lines that sleep, except inside a function that waits on a predicate (`wait_...`)."""
    waiting = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        and function.name.lstrip("_").startswith(("wait", "until", "eventually"))
        for node in ast.walk(function)
    }
    for call, name in calls(tree):
        if name in {"time.sleep", "asyncio.sleep"} and id(call) not in waiting:
            zero = len(call.args) == 1 and ast.unparse(call.args[0]) == "0"
            if not zero:  # sleep(0) only lets others run
                yield call.lineno


def test_sleeps_finds_a_sleep() -> None:
    assert list(sleeps(ast.parse("def test_x():\n    time.sleep(0.1)\n"))) == [2]
    assert not list(sleeps(ast.parse("def wait_until(p):\n    time.sleep(0.1)\n")))


def test_tests_do_not_sleep(tracked: list[Path], root: Path) -> None:
    """A test waits on a predicate with a time-out; a sleep is either too short or too long."""
    found = [
        f"{path.relative_to(root)}:{line}"
        for path in tracked
        if path.suffix == ".py" and path.is_relative_to(root / "tests")
        for line in sleeps(ast.parse(path.read_text()))
    ]
    assert found == []
