"""A dead shim's attempt is ended whole; a copy of its folder is none of ours to end (law 4)."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fleetwire.shim import burial, delivery, spool, tree
from fleetwire.shim.delivery import Secret

if TYPE_CHECKING:
    from tests.shim.conftest import Node, Placed

CANARY = b"canary-7c01-and-more"
KILLED = {"pids.max": "0", "cgroup.kill": "1"}


class Around:
    """A control group of plain files, which hold what was written into them, and a delivery."""

    def __init__(self, node: Node, root: Path) -> None:
        self.attempt = str(uuid.uuid4())
        self.group = root / "group" / self.attempt
        self.group.mkdir(parents=True)
        for name in ("cgroup.procs", *KILLED):
            (self.group / name).touch()
        self.secrets = root / "vault" / self.attempt
        self.secrets.parent.mkdir(mode=0o700)
        delivery.deliver(str(self.secrets), [Secret("token", "file", "token", CANARY)])
        confine = {"uid": None, "gid": 0, "groups": [], "umask": 0o027, "rlimits": {}}
        self.placed: Placed = node.place(
            attempt=self.attempt,
            strict={
                "secrets": str(self.secrets),
                "argv": ["/bin/sh", "-c", "echo ready; exec sleep 60"],
                "confine": {**confine, "cgroups": {str(self.group): {}}},
            },
        )

    def killed(self) -> dict[str, str]:
        return {name: (self.group / name).read_text() for name in KILLED}

    def start(self) -> None:
        """Start it, and put it where the kernel would say that it is."""
        self.placed.start()
        self.placed.wait_output(b"ready")
        self.placed.wait_started()
        (self.group / "cgroup.procs").write_text(f"{self.placed.record('started')['pid']}\n")


@pytest.fixture
def around(node: Node, tmp_path: Path) -> Around:
    return Around(node, tmp_path)


@pytest.mark.parametrize("has_lasted", [True, False], ids=["lasted", "began"])
def test_the_burial_of_a_copy_leaves_the_original_alone(
    around: Around, tmp_path: Path, has_lasted: bool, alive: Callable[[int], bool]
) -> None:
    around.start()
    placed = around.placed
    started = placed.record("started")
    copy = tmp_path / "copy" / placed.attempt
    shutil.copytree(placed.folder, copy, ignore=shutil.ignore_patterns("control"))
    if not has_lasted:  # copied earlier: the same stood in the reserve until then
        (copy / "started").unlink()
        (copy / "reserve").write_text(json.dumps(started))
    assert burial.bury(str(copy)) == burial.COPIED
    assert (spool.read_record(str(copy), "lost") or {})["reason"] == burial.COPIED
    assert around.killed() == dict.fromkeys(KILLED, "")
    assert (around.secrets / "token").read_bytes() == CANARY
    assert alive(started["pid"])
    assert not placed.last()
    placed.stop(0)
    assert placed.wait()["cause"] == "stopped"
    assert not around.secrets.exists()


@pytest.mark.parametrize("with_spawner", [True, False])
def test_the_groups_of_a_dead_shim_are_killed(around: Around, with_spawner: bool) -> None:
    around.start()
    lost = around.placed.killed(with_spawner=with_spawner)
    assert lost["reason"] == burial.SHIM_DIED
    assert around.killed() == KILLED
    assert not around.secrets.exists()


def test_a_look_at_who_lives_harms_nobody(around: Around) -> None:
    (around.group / "cgroup.procs").write_text(f"{os.getpid()}\n")
    found = burial.left_alive(around.placed.folder)
    assert [process.pid for process in found] == [os.getpid()]
    assert found[0].start == tree.start_time(os.getpid())
    assert around.killed() == dict.fromkeys(KILLED, "")
