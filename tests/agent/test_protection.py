"""What can be put around a task, by made-up trees of control groups; the real ones are tried with
real tasks in `test_run_as`, and version 2 only where the machine has it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fleetwire.agent import protection
from fleetwire.agent.drivers import Unable
from fleetwire.agent.protection import Protection, User
from fleetwire.core.specs import Resources

NOBODY = User("nobody", 65534, 65534, "/", "/bin/sh", ("nobody", "65534"), other=True)
ROOT = User("root", 0, 0, "/root", "/bin/sh", ("root", "0"), other=False)
NONE = Protection(switches_users=True, cgroup="none", groups={}, killing="", no_new_privs=True)
ASKED = Resources(memory=1 << 26, cpus=0.5, processes=7, files=64, file_size=9, core=0, cpu_time=3)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A delegated group of version 2, with a group of our own below it."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    delegated = tmp_path / "cg/system.slice/fleetwire-agent.service"
    (delegated / "agent").mkdir(parents=True)
    (tmp_path / "cg/cgroup.controllers").write_text("cpu memory pids\n")
    (delegated / "cgroup.controllers").write_text("cpu memory pids\n")
    (delegated / "fleetwire").mkdir()
    (delegated / "fleetwire/cgroup.controllers").write_text("cpu memory pids\n")
    (tmp_path / "own").write_text("0::/system.slice/fleetwire-agent.service/agent\n")
    return tmp_path


def look(tree: Path) -> Protection:
    return protection.look(str(tree / "cg"), str(tree / "own"))


def test_version_2_is_used_where_it_was_delegated(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protection, "_is_delegated", lambda _: True)
    delegated = tree / "cg/system.slice/fleetwire-agent.service"
    found = look(tree)
    # A real file says what is on ("memory"), this one what was asked for ("+memory").
    assert (delegated / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"
    assert (delegated / "fleetwire/cgroup.subtree_control").read_text() == "+memory +pids +cpu"
    assert found.killing == str(delegated / "fleetwire")
    base = found.killing
    found = found._replace(cgroup="v2", groups=dict.fromkeys(("memory", "pids", "cpu"), base))
    (Path(base) / "memory.swap.max").touch()
    record = protection.confine(found, "ID", NOBODY, ASKED)
    assert record is not None
    assert record["cgroups"] == {
        f"{base}/ID": {
            "memory.max": str(1 << 26),
            "memory.swap.max": "0",
            "pids.max": "7",
            "cpu.max": "50000 100000",
        }
    }
    assert record["rlimits"] == {"CPU": 3, "NOFILE": 64, "FSIZE": 9, "CORE": 0}


def test_version_2_is_left_alone_where_it_was_not_given_to_us(tree: Path) -> None:
    found = look(tree)
    assert (found.cgroup, found.groups, found.killing) == ("none", {}, "")
    assert not (tree / "cg/system.slice/fleetwire-agent.service/cgroup.subtree_control").exists()


@pytest.mark.parametrize("own", ["0::/somewhere\n", "0::/../elsewhere/agent\n", ""])
def test_groups_of_others_are_never_touched(tree: Path, own: str) -> None:
    (tree / "own").write_text(own)
    before = sorted(tree.rglob("*"))
    assert look(tree).cgroup == "none"
    assert sorted(tree.rglob("*")) == before


def test_who_is_not_root_has_none(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    found = look(tree)
    assert found == NONE._replace(switches_users=False)
    with pytest.raises(Unable, match="runs as user 1000 and cannot become nobody"):
        protection.user("nobody")


def test_without_groups_processes_keep_what_they_can_and_the_rest_is_refused() -> None:
    record = protection.confine(NONE, "ID", NOBODY, Resources(memory=1 << 26, processes=7))
    assert record is not None
    assert record["cgroups"] == {}
    assert record["rlimits"] == {"AS": 1 << 26, "NPROC": 7}
    with pytest.raises(Unable, match="cannot limit processors"):
        protection.confine(NONE, "ID", NOBODY, Resources(cpus=1.0))
    with pytest.raises(Unable, match="cannot limit the processes of root"):
        protection.confine(NONE, "ID", ROOT, Resources(processes=7))


def test_nothing_asked_is_nothing_done() -> None:
    assert protection.confine(NONE, "ID", ROOT, Resources()) is None


def test_who_may_not_pass_is_named(tmp_path: Path) -> None:
    open_, closed = tmp_path / "open", tmp_path / "open/closed"
    closed.mkdir(parents=True)
    tmp_path.chmod(0o711)
    open_.chmod(0o711)
    closed.chmod(0o700)
    assert protection.way_in(str(closed / "task"), 65534) == str(closed)
