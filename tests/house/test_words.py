"""One word per thing: GLOSSARY.md is the law, and the code keeps it."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import get_args

from fleetwire.core import attempts, dispatch, runs

# Names that somebody else dictates, and who.
DICTATED = {
    "AbstractAsyncContextManager": "contextlib",
    "AbstractContextManager": "contextlib",
    "Handler": "logging",
    "RotatingFileHandler": "logging",
    "StreamHandler": "logging",
    "addHandler": "logging",
    "add_exception_handler": "Starlette",
    "add_signal_handler": "asyncio",
    "call_exception_handler": "asyncio",
    "default_int_handler": "signal",
    "exception_handler": "FastAPI",
    "exception_handlers": "FastAPI",
    "handler": "logging, signal",
    "handlers": "logging, Starlette",
    "install_signal_handlers": "uvicorn",
    "max_workers": "concurrent.futures",
    "removeHandler": "logging",
    "remove_signal_handler": "asyncio",
    "set_exception_handler": "asyncio",
    "workers": "uvicorn",
}


def forbidden(root: Path) -> list[str]:
    """Read the words of "Not used:" (before the semicolon; what follows depends on its sense)."""
    line = re.search(r"^Not used: ([^;]+);", (root / "GLOSSARY.md").read_text(), re.MULTILINE)
    assert line
    return [word.strip() for word in line[1].split(",")]


def names(tree: ast.Module) -> set[str]:
    """Return every name that the module defines or uses."""
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                found.add(node.name)
            case ast.Name():
                found.add(node.id)
            case ast.Attribute():
                found.add(node.attr)
            case ast.arg():
                found.add(node.arg)
            case ast.keyword(arg=str() as keyword):
                found.add(keyword)
            case ast.alias():
                found.update((node.asname or node.name).split("."))
    return found


def holds(name: str, word: str) -> bool:
    """Say whether the word is part of a name in snake_case or CamelCase."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    singular = word.removesuffix("s")
    return any(part.lower().removesuffix("s") == singular for part in parts)


def test_holds_finds_a_word_in_each_spelling() -> None:
    assert holds("task_manager", "manager")
    assert holds("TaskManagers", "manager")
    assert holds("http_utils", "utils")
    assert holds("WORKER_LIMIT", "worker")
    assert not holds("management", "manager")
    assert not holds("networker", "worker")


def test_words_not_used_are_not_used(root: Path, sources: dict[str, ast.Module]) -> None:
    words = forbidden(root)
    assert {"manager", "worker", "handler"} <= set(words)
    found = [
        f"{module}: {name}"
        for module, tree in sources.items()
        for name in sorted(names(tree) | set(module.split(".")))
        for word in words
        if holds(name, word) and name not in DICTATED
    ]
    assert found == []


def test_states_and_outcomes_stand_in_the_glossary(root: Path) -> None:
    glossary = (root / "GLOSSARY.md").read_text()
    rows = {
        row.split("|")[1].strip(): row.split("|")[2]
        for row in glossary.splitlines()
        if row.startswith("|")
    }
    said = {
        "wish / state": get_args(attempts.State)
        + get_args(attempts.Wish)
        + get_args(runs.RunState),
        "outcome": get_args(attempts.Outcome),
        "online, unstable, offline": get_args(dispatch.LinkState),
        "waiting, active, draining, drained, disabled, quarantined": get_args(dispatch.AdminState),
    }
    for row, values in said.items():
        assert values
        known = set(re.findall(r"\w+", f"{row} {rows[row]}"))
        assert set(values) <= known, row
