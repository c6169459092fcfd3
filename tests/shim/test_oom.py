"""What the kernel tells of those it killed for want of memory."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.shim.conftest import Node, wait_until

from fleetwire.shim import oom

GROUP_BYTES = 64 * 1024 * 1024
EATER = "x = bytearray(); [x.extend(bytes(1 << 20)) for _ in range(1 << 16)]"


def test_only_an_end_by_kill_is_explained() -> None:
    victims = frozenset({7})
    assert oom.explain(7, 0, None, grew=3, victims=victims) is None
    assert oom.explain(7, None, signal.SIGTERM, grew=3, victims=victims) is None
    assert oom.explain(8, None, signal.SIGKILL, grew=0, victims=victims) is None
    sure = oom.explain(7, None, signal.SIGKILL, grew=0, victims=victims)
    assert sure == "out of memory: the kernel's OOM killer ended it"
    # A shell whose child was killed, or a victim whose name only the count tells.
    for code, number in ((137, None), (None, signal.SIGKILL)):
        guess = oom.explain(8, code, number, grew=2, victims=victims)
        assert guess is not None
        assert guess.startswith("most likely out of memory")
        assert "2 processes" in guess
    assert "a process here" in (oom.explain(8, 137, None, grew=1, victims=frozenset()) or "")


def test_a_count_that_fell_is_of_another_group() -> None:
    assert oom.grown(3, 5) == 2
    assert oom.grown(5, 2) == 2
    assert oom.grown(None, 5) == oom.grown(5, None) == 0


def test_the_count_is_found_in_the_groups_file(tmp_path: Path) -> None:
    events = tmp_path / "memory.events"
    events.write_text("low 0\noom 4\noom_kill 3\noom_group_kill 1\n")
    assert oom.kills(str(events)) == 3
    events.write_text("nothing\n")
    assert oom.kills(str(events)) is None
    events.write_text("oom_kill many\n")
    assert oom.kills(str(events)) is None
    assert oom.kills(str(tmp_path / "none")) is None
    assert oom.kills(None) is None


def test_the_kernels_log_names_the_victims(tmp_path: Path) -> None:
    log = tmp_path / "kmsg"
    log.write_text(
        "6,1,1000000,-;Memory cgroup out of memory: Killed process 11 (python) total-vm:1kB\n"
        "6,2,9000000,-;Out of memory: Killed process 12 (java) total-vm:1kB\n"
        "6,3,9500000,-;a line about Killed things\n"
        "a line like no other\n"
        ";Killed process 13\n"
    )
    assert oom.victims(9.0, str(log)) == {12}
    assert oom.victims(0.0, str(log)) == {11, 12, 13}
    assert oom.victims(0.0, str(tmp_path / "none")) == frozenset()


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group with little memory, where this machine lets us make one."""
    counter = oom.counter()
    if counter is None:
        pytest.skip("not run: no control group counts here")
    parent = Path(counter).parent
    group = parent / f"fleetwire-test-{os.getpid()}"
    limit = "memory.max" if counter.endswith("memory.events") else "memory.limit_in_bytes"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"not run: no control group can be made here: {error}")
    try:
        try:
            (group / limit).write_text(str(GROUP_BYTES))
        except OSError as error:
            pytest.skip(f"not run: the group's memory cannot be limited: {error}")
        yield group
    finally:
        wait_until(
            lambda: not (group / "cgroup.procs").read_text().strip(), "the group to be empty"
        )
        group.rmdir()


def test_a_task_that_the_kernel_killed_says_so(node: Node, small_group: Path) -> None:
    procs = small_group / "cgroup.procs"
    eat = f"echo $$ > {procs}; exec {sys.executable} -c '{EATER}'"
    record = node.sh(eat).run()
    assert (record["cause"], record["signal"]) == ("exited", signal.SIGKILL)
    # Its group is another than ours, so only the kernel's log can tell.
    if os.access("/dev/kmsg", os.R_OK) and _kmsg_opens():
        assert record["error"] == "out of memory: the kernel's OOM killer ended it"
    else:
        assert record["error"] is None


def test_a_kill_by_a_person_is_not_called_want_of_memory(node: Node) -> None:
    record = node.sh("kill -9 $$").run()
    assert (record["signal"], record["error"]) == (signal.SIGKILL, None)


def test_the_end_that_was_asked_for_tells_when_its_signals_went(node: Node) -> None:
    placed = node.sh("trap '' TERM; echo ready; while :; do sleep 0.05; done")
    placed.start()
    wait_until(lambda: b"ready" in placed.log())
    placed.ask("stop", grace_s=0.2)
    record = placed.wait()
    assert record["cause"] == "stopped"
    assert 0 < record["term_s"] < record["kill_s"] <= record["duration_s"]
    assert record["kill_s"] - record["term_s"] > 0.15


def _kmsg_opens() -> bool:
    with contextlib.suppress(OSError):
        os.close(os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK))
        return True
    return False


def test_a_group_without_processes_has_a_count(small_group: Path) -> None:
    name = Path(oom.counter() or "").name
    join = f"echo $$ > {small_group / 'cgroup.procs'}; exec {sys.executable} -c '{EATER}'"
    done = subprocess.run(["/bin/sh", "-c", join], check=False)
    assert done.returncode == -signal.SIGKILL
    assert oom.kills(str(small_group / name)) == 1
