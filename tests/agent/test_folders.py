"""Folders, drivers, watch: the agent's edges, on a real disk."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetwire.agent import drivers, files, folders, inventory, logs, platforms, status, watch
from fleetwire.agent.drivers import Unable
from fleetwire.agent.folders import Places
from fleetwire.core import limits
from fleetwire.core.happenings import Started
from fleetwire.core.specs import Ping, Script, Scripted, Step
from fleetwire.shim.spool import take_lock, write_record

ID = "0190b7f0-1c2d-7abc-8def-0123456789ab"


@pytest.fixture
def places(tmp_path: Path) -> Places:
    found = Places(str(tmp_path / "state"))
    found.make()
    return found


@pytest.fixture
def spool(places: Places) -> Path:
    path = Path(places.spool(ID))
    path.mkdir()
    return path


@pytest.fixture
def held(spool: Path) -> Iterator[None]:
    lock = take_lock(str(spool))
    assert lock is not None
    yield
    os.close(lock)


def test_folders_are_the_owners(places: Places) -> None:
    for path in (places.state, places.spools, places.tasks):
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o700


def test_empty_folder_says_nothing(spool: Path) -> None:
    folder = folders.load(str(spool))
    assert (folder.live, folder.begun, folder.ended, folder.barred) == (False, None, False, -1)


@pytest.mark.usefixtures("held")
def test_lock_is_life(spool: Path) -> None:
    assert folders.load(str(spool)).live
    write_record(str(spool), "exit", exit_record())
    assert not folders.load(str(spool)).live  # its record is final, whoever holds the lock


def exit_record() -> dict[str, object]:
    return {
        "epoch": 3,
        "cause": "exited",
        "exit_code": 0,
        "signal": None,
        "at": 9,
        "started_at": 8,
        "duration_s": 0.5,
        "length": 0,
        "sha256": "",
        "leftovers": 0,
        "error": None,
    }


def test_records_become_happenings(spool: Path) -> None:
    for name, record in {
        "order": {"epoch": 3},
        "epoch": {"epoch": 3},
        "started": {"at": 8, "pid": 1},
        "exit": exit_record(),
        "declined": {"epoch": 4, "at": 1, "reason": "no", "final": True},
        "canceled": {"epoch": 2, "at": 1},
    }.items():
        write_record(str(spool), name, record)
    folder = folders.load(str(spool))
    assert (folder.ordered, folder.begun) == (3, 3)
    assert folder.exited is not None
    assert (folder.exited.duration, folder.exited.exit_code) == (0.5, 0)
    assert folder.barred == 4
    assert folder.declined is not None
    assert folder.declined.final


@pytest.mark.parametrize(("pid", "started"), [(5, Started(8)), (None, None)])
def test_what_was_over_at_once_is_known_to_have_started_by_its_end(
    spool: Path, pid: int | None, started: Started | None
) -> None:
    write_record(str(spool), "epoch", {"epoch": 3})
    write_record(str(spool), "exit", {**exit_record(), "pid": pid})
    assert folders.load(str(spool)).started == started


def test_torn_epoch_counts(spool: Path) -> None:
    write_record(str(spool), "order", {"epoch": 3})
    (spool / "epoch").write_bytes(b"\0\0\0")
    assert folders.load(str(spool)).begun == 3


DAMAGED = (
    b"",
    b"{",
    b"\xff",
    b"[]",
    b"{}",
    b'{"epoch":"x","at":"y"}',
    b'{"epoch":1e99}',
    b"[" * 99_999,
)


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_record_never_raises_and_never_lets_it_start(spool: Path, content: bytes) -> None:
    for name in ("started", "declined", "canceled", "stop"):
        (spool / name).write_bytes(content)
    folder = folders.load(str(spool))
    assert (folder.started, folder.declined, folder.canceled) == (None, None, None)
    assert (folder.begun, folder.barred, folder.stop, folder.ended) == (None, -1, -1, False)
    assert folders.clear_tombstones(str(spool), 1)
    for name in ("order", "epoch"):
        (spool / name).write_bytes(content)
    assert folders.load(str(spool)).begun == 0


@pytest.mark.parametrize("name", ["exit", "lost"])
@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_last_record_is_lost_and_stays_so(spool: Path, name: str, content: bytes) -> None:
    write_record(str(spool), "epoch", {"epoch": 3})
    (spool / name).write_bytes(content)
    folder = folders.load(str(spool))
    assert folder.ended
    assert folder.lost is not None
    assert f"`{name}` on the node is damaged" in folder.lost.reason
    assert folders.load(str(spool)) == folder


def test_bar(spool: Path) -> None:
    assert folders.bar(str(spool), 5, 1)
    assert folders.load(str(spool)).canceled_epoch == 5
    assert not folders.clear_tombstones(str(spool), 5) or folders.load(str(spool)).barred == 5
    assert folders.clear_tombstones(str(spool), 6)
    assert folders.load(str(spool)).barred == -1


def test_nothing_is_put_into_a_folder_that_was_barred_meanwhile(spool: Path) -> None:
    with folders.held_unbegun(str(spool)) as unbegun:
        assert unbegun
        assert not folders.bar(str(spool), 5, 1)  # whose shim will find `stop`
    assert folders.bar(str(spool), 5, 1)
    with folders.held_unbegun(str(spool)) as unbegun:
        assert not unbegun
    assert folders.clear_tombstones(str(spool), 6)
    with folders.held_unbegun(str(spool)) as unbegun:
        assert unbegun


@pytest.mark.usefixtures("held")
def test_bar_against_a_shim(spool: Path) -> None:
    assert not folders.bar(str(spool), 5, 1)
    assert folders.load(str(spool)).stop == 5
    assert folders.load(str(spool)).barred == -1
    assert not folders.clear_tombstones(str(spool), 6)


def test_begun_is_never_cleared(spool: Path) -> None:
    write_record(str(spool), "epoch", {"epoch": 1})
    assert not folders.clear_tombstones(str(spool), 6)
    assert not folders.bar(str(spool), 6, 1)


@pytest.mark.usefixtures("held")
def test_delete_spares_the_living(places: Places, spool: Path) -> None:
    assert not folders.delete(places, ID)
    assert spool.exists()


def test_delete_whatever_the_task_left(places: Places, spool: Path) -> None:
    task = Path(places.task(ID))
    (task / "a" / "b").mkdir(parents=True)
    (task / "a" / "b" / "f").write_text("x")
    (task / "link").symlink_to("/etc")
    (task / "a" / "b").chmod(0o000)
    (task / "a").chmod(0o500)
    assert folders.delete(places, ID)
    assert not spool.exists()
    assert not task.exists()
    assert Path("/etc/passwd").exists()
    assert folders.delete(places, ID)  # twice is harmless


@pytest.mark.usefixtures("spool")
def test_only_ids_are_attempts(places: Places) -> None:
    (Path(places.spools) / "lost+found").mkdir()
    assert places.attempts() == [ID]


def test_write_atomically_keeps_the_mode_tight(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    files.write_atomically(str(path), b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    files.write_new(str(path), b"newer", mode=0o500)
    assert stat.S_IMODE(path.stat().st_mode) == 0o500


@pytest.mark.parametrize("shell", ["sh", "bash", "python"])
def test_script_is_a_file_and_never_an_argument(shell: str) -> None:
    spec = Script("secret", shell=shell, args=("a",))  # type: ignore[arg-type]
    launch = drivers.prepare(spec, task="/task", search=os.environ["PATH"])
    assert launch.argv[1:] == ("/task/script", "a")
    assert Path(launch.argv[0]).is_absolute()
    assert launch.files == {"script": b"secret"}


def test_unable() -> None:
    for spec in (Script("x", shell="bash"), Ping()):
        with pytest.raises(Unable, match="is not installed on this node"):
            drivers.prepare(spec, task="/task", search="/nowhere")


def test_steps_are_played(tmp_path: Path) -> None:
    steps = (
        Step("ignore"),
        Step("print", text="a", count=2, seconds=0.001),
        Step("bytes", size=20),
        Step("ledger", text=str(tmp_path / "ledger")),
        Step("escape", seconds=0.0),
        Step("signal", code=15),
    )
    launch = drivers.prepare(Scripted(steps), task=str(tmp_path), search="")
    for name, content in launch.files.items():
        (tmp_path / name).write_bytes(content)
    result = subprocess.run(launch.argv, capture_output=True, check=False)
    assert result.stdout == b"a\na\n000000000000000100000000"[: 4 + 20]
    assert result.returncode == -15
    assert len((tmp_path / "ledger").read_text().splitlines()) == 1
    assert launch.argv[0] == sys.executable


@pytest.mark.parametrize("kind", [watch.open_watch, watch.Poll])
def test_watch(kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "POLL_S", 0.01)

    async def scenario() -> None:
        seen: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        eye = kind(lambda attempt, name: seen.put_nowait((attempt, name)))
        eye.add("one", str(tmp_path))
        (tmp_path / "output.0").write_text("x")
        async with asyncio.timeout(5):
            attempt, name = await seen.get()
        assert attempt == "one"
        assert name in {"output.0", ""}
        eye.remove("one")
        eye.remove("one")
        eye.close()

    asyncio.run(scenario())


def test_inventory_fits() -> None:
    facts = inventory.collect()
    assert facts["hostname"]
    assert facts["disks"]
    huge = {**facts, "disks": [{"mount": "x" * 1000}] * 1000}
    assert len(json.dumps(inventory.fitted(huge))) <= limits.INVENTORY_BYTES
    assert inventory.fitted({"hostname": "h", "x": "y" * 100_000}) == {"hostname": "h"}
    assert inventory.labels()["os"] == "linux"


def test_status_is_for_people(tmp_path: Path) -> None:
    assert status.read(str(tmp_path)) is None
    assert "No agent has run" in status.describe(None, running=False, now=0)

    async def scenario() -> None:
        now = 1_000_000
        said = status.Status(str(tmp_path), version="1", wall=lambda: now)
        said.introduce("id", "web-1")
        said.say("link", "connected to x")
        said.write()

    asyncio.run(scenario())
    report = status.read(str(tmp_path))
    text = status.describe(report, running=True, now=121_000_000)
    assert "agent web-1, 1, running" in text
    assert "connected to x (for 2 min)" in text


def test_log_rotates_and_is_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    for handler in before:
        root.removeHandler(handler)
    try:
        logs.configure(str(tmp_path), level="info", style="text", max_bytes=2000, max_files=2)
        log = logging.getLogger("fleetwire.test")
        for number in range(60):
            log.info("line %d", number, extra={"fields": {"n": number}})
        entry = json.loads((tmp_path / "agent.log").read_text().splitlines()[-1])
        assert entry["message"] == "line 59"
        assert entry["n"] == 59
        assert entry["time"].endswith("Z")
        assert {path.name for path in tmp_path.iterdir()} == {
            *("agent.log", "agent.log.1.gz", "agent.log.2.gz")
        }
        assert "line 59 n=59" in capsys.readouterr().err
    finally:
        for handler in list(root.handlers):
            root.removeHandler(handler)
            handler.close()
        for handler in before:
            root.addHandler(handler)
        root.setLevel(level)


def test_what_an_error_holds_cannot_pass_for_a_line_of_the_log() -> None:
    hostile = "no such thing: \x1b[2J\u202e\n12:00:00 info    all is well"
    try:
        raise RuntimeError(hostile)
    except RuntimeError:
        record = logging.LogRecord("x", logging.ERROR, "", 1, "it failed", (), sys.exc_info())
    first, *rest = logs.TextFormatter().format(record).split("\n")
    assert first.endswith("error   it failed")
    assert "no such thing: \\x1b[2J\\u202e" in rest[-2]
    assert rest[-1] == "    12:00:00 info    all is well"
    assert all(line.startswith("    ") for line in rest)


def test_lock_of_the_state_directory(tmp_path: Path) -> None:
    path = str(tmp_path / "agent.lock")
    lock = platforms.lock_file(path)
    assert lock is not None
    assert platforms.lock_file(path) is None
    os.close(lock)
    assert len(platforms.boot_id()) == 36
    assert platforms.clock() <= platforms.clock()


def test_what_is_deleted_is_no_link_that_a_task_left(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    (outside / "kept").touch()
    tree = tmp_path / "tree"
    (tree / "closed").mkdir(parents=True)
    (tree / "closed/file").touch()
    (tree / "closed").chmod(0o000)
    (tree / "link").symlink_to(outside)
    folders.remove_tree(str(tree))
    assert not tree.exists()
    assert (outside / "kept").exists()
    assert outside.stat().st_mode & 0o777 == 0o755
