"""Users, projects, roles and tokens, typed as a person types them, against a real server."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.cli.test_system import call

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import System

pytestmark = pytest.mark.slow


def said(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def test_somebody_from_making_to_disabling(system: System, tmp_path: Path) -> None:
    made = system("users", "create", "ann")
    password = said(made).strip()
    assert b"may nothing yet" in made.stderr
    chief = system("users", "create", "chief", "--system-admin")
    assert b"may manage users and projects" in chief.stderr
    assert b"may nothing" not in chief.stderr
    (tmp_path / "password").write_text(password)
    ann = system.environ | {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    for name in ("FLEETWIRE_URL", "FLEETWIRE_TOKEN"):
        ann.pop(name, None)
    url = system.told["url"]
    login = ("login", url, "--username", "ann", "--password-file", str(tmp_path / "password"))
    assert "as ann" in said(call(ann, *login))
    assert "role    user" in said(call(ann, "whoami"))
    # nothing, then what a viewer may, then what an operator may
    assert call(ann, "nodes").returncode == 4
    assert "viewer" in said(system("roles", "grant", "ann", "viewer"))
    assert "local-1" in said(call(ann, "nodes"))
    run = ("run", "--node", "local-1", "--", "echo hi")
    assert call(ann, *run).returncode == 4
    granted = said(system("roles", "grant", "ann", "operator", "terminal"))
    assert granted == "ann has in default: operator, terminal, viewer.\n"
    assert said(call(ann, *run)) == "hi\n"
    assert call(ann, "roles", "grant", "ann", "project-admin").returncode == 4
    assert call(ann, "users").returncode == 4
    assert "operator, terminal, viewer" in said(system("roles"))
    assert "default" in said(system("users", "show", "ann"))
    assert "default" in said(call(ann, "projects"))
    took = said(system("roles", "revoke", "ann", "operator", "terminal", "viewer"))
    assert took == "ann has in default: no role any more.\n"
    assert call(ann, *run).returncode == 4
    assert "disabled" in said(system("users", "disable", "ann"))
    assert call(ann, "whoami").returncode == 4
    assert "ann" in said(system("users"))
    assert "log in again" in said(system("users", "enable", "ann"))
    assert said(system("users", "reset-password", "ann")).strip() != password
    assert call(ann, *login).returncode == 4
    said(system("users", "end-totp", "ann"))


def test_projects_and_narrow_tokens(system: System) -> None:
    assert "is made" in said(system("projects", "create", "web"))
    assert "web" in said(system("projects"))
    assert said(system("nodes", "--project", "web")) == ""
    assert system("run", "--project", "web", "--node", "local-1", "--", "true").returncode == 2
    made = system.json("tokens", "create", "ci", "--project", "web", "--permission", "read")
    assert (made["project"], made["permissions"]) == ("web", ["read"])
    environ = system.environ | {"FLEETWIRE_URL": system.told["url"]}
    narrow = environ | {"FLEETWIRE_TOKEN": made["token"]}
    assert said(call(narrow, "runs")) == ""
    assert call(narrow, "tokens").returncode == 4
    assert system("projects", "delete", "default").returncode == 1
    assert "is deleted" in said(system("projects", "delete", "web"))
    assert call(narrow, "runs").returncode == 4
