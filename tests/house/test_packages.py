"""The tree is the one that ARCHITECTURE.md draws, so no import contract is kept by absence."""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

# ARCHITECTURE.md, section 3, without what is marked (later) there.
PACKAGES = [
    "fleetwire.agent",
    "fleetwire.agent.drivers",
    "fleetwire.cli",
    "fleetwire.client",
    "fleetwire.core",
    "fleetwire.protocol",
    "fleetwire.server",
    "fleetwire.server.api",
    "fleetwire.server.domain",
    "fleetwire.server.durable",
    "fleetwire.server.gateway",
    "fleetwire.server.logs",
    "fleetwire.server.loops",
    "fleetwire.server.nudges",
    "fleetwire.server.store",
    "fleetwire.shim",
    "fleetwire.swarm",
    "fleetwire.testing",
]
# What the agent may use of the shim: the format, the way in, the way to talk (architecture 4).
SHIM_DOORS = tuple(
    f"fleetwire.shim.{door}"
    for door in ("control", "delivery", "frames", "oom", "spawner", "spool")
)


def contracts(root: Path) -> list[dict[str, Any]]:
    config = tomllib.loads((root / "pyproject.toml").read_text())
    found: list[dict[str, Any]] = config["tool"]["importlinter"]["contracts"]
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_package_exists_and_holds_code(sources: dict[str, ast.Module], package: str) -> None:
    assert package in sources, f"{package} has no __init__.py"
    inside = [
        tree for name, tree in sources.items() if name == package or name.startswith(f"{package}.")
    ]
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    assert any(isinstance(node, definitions) for tree in inside for node in tree.body)


def test_every_room_is_on_the_list(sources: dict[str, ast.Module]) -> None:
    """A new room needs a place in the contracts: the package's own children and the server's."""
    packages = {name.rpartition(".")[0] for name in sources} - {"", "fleetwire"}
    rooms = {p for p in packages if p.rpartition(".")[0] in {"fleetwire", "fleetwire.server"}}
    assert sorted(rooms | {"fleetwire.agent.drivers"}) == PACKAGES


def test_every_package_says_what_it_is_for(sources: dict[str, ast.Module], root: Path) -> None:
    silent = [name for name, tree in sources.items() if not ast.get_docstring(tree)]
    # Alembic's migrations carry their reason in their revision message.
    assert [name for name in silent if ".migrations" not in name] == []
    without_init = {
        str(path.parent.relative_to(root))
        for path in (root / "src/fleetwire").rglob("*.py")
        if not (path.parent / "__init__.py").exists()
    }
    assert without_init == set()


def test_contracts_speak_of_every_room(root: Path) -> None:
    named = {
        word
        for contract in contracts(root)
        for key in ("layers", "source_modules")
        for entry in contract.get(key, [])
        for word in entry.replace("|", " ").split()
    }
    assert set(PACKAGES) - {"fleetwire.agent.drivers"} <= named


def test_shim_is_standard_library_only(imports: dict[str, set[str]]) -> None:
    allowed = sys.stdlib_module_names | {"fleetwire"}
    for name, imported in imports.items():
        if not name.startswith("fleetwire.shim"):
            continue
        assert {i for i in imported if i.split(".")[0] not in allowed} == set(), name
        ours = {i for i in imported if i.startswith("fleetwire")}
        assert {i for i in ours if not i.startswith("fleetwire.shim")} == set(), name


def test_agent_uses_only_the_doors_of_the_shim(imports: dict[str, set[str]]) -> None:
    for name, imported in imports.items():
        if name.startswith("fleetwire.agent"):
            shim = {i for i in imported if i.startswith("fleetwire.shim")}
            behind = {
                i for i in shim if not any(f"{i}.".startswith(f"{door}.") for door in SHIM_DOORS)
            }
            assert behind == set(), name


def test_gateway_never_has_the_servers_private_key(imports: dict[str, set[str]]) -> None:
    for name, imported in imports.items():
        if name.startswith("fleetwire.server.gateway"):
            assert not {i for i in imported if i.startswith("fleetwire.server.signing")}, name
