"""`fleetwire run --as USER --memory ...`, and what nodes say that they can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import System

pytestmark = pytest.mark.slow


def test_limits_reach_the_task_and_refusals_the_person(system: System) -> None:
    limited = system(
        "run", "--node", "local-1", "--files", "64", "--core-size", "0", "--", "ulimit -n"
    )
    assert (limited.returncode, limited.stdout) == (0, b"64\n")
    refused = system("run", "--node", "local-1", "--as", "no-such-user", "--", "true")
    assert refused.returncode == 5
    assert b"this node has no user 'no-such-user'" in refused.stderr
    wrong = system("run", "--node", "local-1", "--memory", "1K", "--", "true")
    assert wrong.returncode == 2
    assert b"spec.resources.memory is 1024.\nUse 4194304 to" in wrong.stderr


def test_nodes_and_doctor_tell_policy_and_protection(system: System) -> None:
    shown = system("nodes", "show", "local-1").stdout
    assert b"policy " in shown
    assert b"state absent" in shown
    assert b"protection " in shown
    assert b"no_new_privs True" in shown
    assert b"secrets_in_memory " in shown
    assert b"nodes: " in system("doctor").stdout
