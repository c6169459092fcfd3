"""What a shim puts around a task, and that nothing runs where it cannot."""

from __future__ import annotations

import errno
import os
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fleetwire.shim import confine
from fleetwire.shim.confine import Confinement
from fleetwire.shim.order import Order, OrderError

if TYPE_CHECKING:
    from tests.shim.conftest import Node, Placed

UNIFIED = next(
    (
        path
        for path in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup")
        if os.path.exists(f"{path}/cgroup.procs")
    ),
    "",
)


def confined(**more: Any) -> dict[str, Any]:
    return {
        "uid": None,
        "gid": 0,
        "groups": [],
        "umask": 0o027,
        "rlimits": {},
        "cgroups": {},
    } | more


def strict(node: Node, *argv: str, most: int = 0, **around: Any) -> Placed:
    """An order whose argv stands where an older shim does not look."""
    attempt = str(uuid.uuid4())
    inside: dict[str, Any] = {"argv": list(argv), "most": most}
    if around:
        cgroups = {f"{base}/{attempt}": files for base, files in around.pop("bases", {}).items()}
        inside["confine"] = confined(cgroups=cgroups, **around)
    return node.place(attempt=attempt, strict=inside)


def test_limits_and_umask_without_another_user(node: Node) -> None:
    placed = strict(node, "/bin/sh", "-c", "umask; ulimit -n; exit 4", rlimits={"NOFILE": 33})
    record = placed.run()
    assert placed.log() == b"0027\n33\n"
    assert (record["cause"], record["exit_code"]) == ("exited", 4)


def test_nothing_is_inherited_but_three_descriptors(node: Node) -> None:
    script = "import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))"
    placed = strict(node, sys.executable, "-S", "-c", script, rlimits={"CORE": 0})
    placed.run()
    assert placed.log() == b"[0, 1, 2, 3]\n"  # 3 is the folder that is listed


def test_a_program_that_is_not_there(node: Node) -> None:
    record = strict(node, "/no/such/program", rlimits={"CORE": 0}).run()
    assert (record["exit_code"], record["pid"]) == (127, None)
    assert record["error"] == "cannot execute /no/such/program: No such file or directory"


@pytest.mark.parametrize(
    ("around", "why"),
    [
        ({"bases": {"/no/such/group": {}}}, "its control group /no/such/group/"),
        ({"rlimits": {"NOSUCH": 1}}, "cannot take its limits"),
        ({"rlimits": {"NOFILE": -5}}, "cannot take its limits"),
    ],
    ids=["group", "limit", "value"],
)
def test_what_cannot_be_confined_does_not_run(node: Node, around: dict[str, Any], why: str) -> None:
    placed = strict(node, "/bin/sh", "-c", "touch ran", **around)
    placed.start()
    reason = placed.wait("lost")["reason"]
    assert reason.startswith("start failed: ")
    assert why in reason
    assert not (placed.home / "ran").exists()


def test_more_output_than_the_node_allows_ends_it(node: Node) -> None:
    placed = strict(node, "/bin/sh", "-c", "while :; do echo much; done", most=4096)
    record = placed.run()
    assert record["cause"] == "quota"
    assert record["error"] == "its output passed the 4096 bytes that the node's policy allows"


def test_just_as_much_output_as_the_node_allows_is_fine(node: Node) -> None:
    placed = strict(node, "/bin/sh", "-c", "head -c 4096 /dev/zero; sleep 0.1", most=4096)
    record = placed.run()
    assert (record["cause"], record["exit_code"], record["length"]) == ("exited", 0, 4096)


def test_a_group_is_killed_in_one_step_and_removed(node: Node) -> None:
    base = Path(UNIFIED, "fleetwire-tests")
    try:
        base.mkdir(exist_ok=True)
        usable = (base / "cgroup.kill").exists()
    except OSError:
        usable = False
    if not usable:
        pytest.skip("not run: no control group of version 2 can be made here")
    placed = strict(node, "/bin/sh", "-c", "sleep 60 & sleep 60", bases={str(base): {}})
    placed.start()
    group = base / placed.attempt
    placed.wait_started()
    assert len((group / "cgroup.procs").read_text().split()) >= 2
    assert len(confine.members(placed.folder)) >= 2
    assert not placed.has("exit")  # a look kills nobody
    confine.kill_left(placed.folder)
    assert placed.wait()["signal"] == 9
    assert not group.exists()
    base.rmdir()


def test_a_fork_that_fails_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_process() -> int:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", no_process)
    around = Confinement.from_record(confined())
    assert around is not None
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="temporarily"):
        confine.execute("/bin/true", ["true"], {}, around, {}, None)
    assert os.listdir("/proc/self/fd") == before


def test_an_order_without_argv_is_none() -> None:
    """As a shim from before `strict` reads one that has it."""
    record = {
        "attempt": "a", "epoch": 1, "env": {}, "cwd": "/", "tty": None, "stdin": "null",
        "deadline_s": 1, "grace_s": 1, "quota": 1, "quota_policy": "block", "piece": 1,
    }  # fmt: skip
    with pytest.raises(OrderError, match="argv"):
        Order.from_record(record)
    inside = {"argv": ["true"], "secrets": "/run/a", "most": 5}
    order = Order.from_record({**record, "strict": inside})
    assert (order.argv, order.secrets, order.most) == (["true"], "/run/a", 5)
    with pytest.raises(OrderError, match="no folder of this attempt"):
        Order.from_record({**record, "strict": {**inside, "secrets": "/run/b"}})
