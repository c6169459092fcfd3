from __future__ import annotations

import errno
import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetwire.shim import records, spool


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path)


@pytest.fixture
def directory(folder: str) -> Iterator[int]:
    fd = os.open(folder, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_a_record_is_read_as_it_was_written(folder: str) -> None:
    assert spool.read_record(folder, "exit") is None
    for sync in (True, False):
        value = {"text": "grüße", "n": 1 << 52, "sync": sync}
        spool.write_record(folder, "exit", value, sync=sync)
        assert spool.read_record(folder, "exit") == value
    assert os.listdir(folder) == ["exit"]
    assert stat.S_IMODE(os.stat(os.path.join(folder, "exit")).st_mode) == 0o600


@pytest.mark.parametrize("content", [b"", b'{"epoch": 1', b"[1]", b"\xff"])
def test_a_record_without_its_content_is_there_all_the_same(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "epoch").write_bytes(content)
    assert spool.read_record(str(tmp_path), "epoch") == {}


def test_what_a_crash_left_half_written_is_no_record(tmp_path: Path) -> None:
    (tmp_path / "exit.tmp").write_bytes(b'{"half')
    assert spool.read_record(str(tmp_path), "exit") is None
    spool.write_record(str(tmp_path), "exit", {})
    assert spool.read_record(str(tmp_path), "exit") == {}


def test_a_record_is_created_once(directory: int, folder: str) -> None:
    assert records.create_record_at(directory, "epoch", {"epoch": 1})
    assert not records.create_record_at(directory, "epoch", {"epoch": 2})
    assert spool.read_record(folder, "epoch") == {"epoch": 1}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a record of its own is written")
def test_a_record_is_created_once_as_another_name_of_its_twin(directory: int, folder: str) -> None:
    records.write_record_at(directory, "order", {"epoch": 1, "argv": ["true"]}, sync=False)
    twin, value = records.open_record(directory, "order")
    assert records.create_record_at(directory, "epoch", {"epoch": 1}, twin=twin)
    assert records.read_record(folder, "epoch") == value
    assert os.path.samefile(f"{folder}/epoch", f"{folder}/order")
    assert not records.create_record_at(directory, "epoch", {"epoch": 1}, twin=twin)
    os.close(twin)


def test_a_twin_that_was_replaced_meanwhile_is_none(directory: int, folder: str) -> None:
    records.write_record_at(directory, "order", {"epoch": 1}, sync=False)
    twin, _ = records.open_record(directory, "order")
    records.write_record_at(directory, "order", {"epoch": 2}, sync=False)
    assert records.create_record_at(directory, "epoch", {"epoch": 1, "pid": 5}, twin=twin)
    assert records.read_record(folder, "epoch") == {"epoch": 1, "pid": 5}
    os.close(twin)


def test_what_is_created_is_synced_up_to_the_folders_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "attempt").mkdir()
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    directory = os.open(tmp_path / "attempt", os.O_RDONLY)
    try:
        assert records.create_record_at(directory, "epoch", {"epoch": 1})
    finally:
        os.close(directory)
    folder = str(tmp_path / "attempt")
    assert synced == [f"{folder}/epoch", folder, str(tmp_path)]


def test_the_last_record_stands_in_the_reserve(directory: int, folder: str) -> None:
    records.set_reserve_aside(directory)
    before = os.stat(os.path.join(folder, records.RESERVE))
    assert before.st_blocks * 512 >= records.RESERVE_BYTES
    records.write_last_record_at(directory, "exit", {"exit_code": 0})
    assert os.stat(os.path.join(folder, "exit")).st_ino == before.st_ino
    assert spool.read_record(folder, "exit") == {"exit_code": 0}


@pytest.mark.parametrize(
    ("name", "value"), [("exit", {"cause": "exited"}), ("lost", {"reason": "start failed: no"})]
)
@pytest.mark.parametrize("tail", [b"", bytes(1000)])
def test_a_record_left_in_the_reserve_gets_its_name(
    directory: int, folder: str, name: str, value: dict[str, str], tail: bytes
) -> None:
    (Path(folder) / records.RESERVE).write_bytes(json.dumps(value).encode() + tail)
    assert records.finish_last_record_at(directory) == name
    assert spool.read_record(folder, name) == value
    assert os.listdir(folder) == [name]
    assert records.finish_last_record_at(directory) is None


@pytest.mark.parametrize("content", [bytes(4096), b"", b'{"cause": "exi', b'{"cause"' + bytes(9)])
def test_a_reserve_without_a_whole_record_stays_one(
    directory: int, folder: str, content: bytes
) -> None:
    (Path(folder) / records.RESERVE).write_bytes(content)
    assert records.finish_last_record_at(directory) is None
    assert os.listdir(folder) == [records.RESERVE]


def test_on_a_full_disk_the_reserve_is_used(
    directory: int, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    records.set_reserve_aside(directory)
    write = os.write

    def full(fd: int, data: bytes) -> int:
        if os.readlink(f"/proc/self/fd/{fd}").endswith(".tmp"):
            raise OSError(errno.ENOSPC, "full")
        return write(fd, data)

    monkeypatch.setattr(os, "write", full)
    spool.write_record(folder, "lost", {"reason": "shim died"})
    assert spool.read_record(folder, "lost") == {"reason": "shim died"}
    assert os.listdir(folder) == ["lost"]


def test_another_error_is_told(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_fd: int, _data: bytes) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "write", broken)
    with pytest.raises(OSError, match="broken"):
        spool.write_record(folder, "lost", {})


def test_the_lock_is_held_once_and_seen(folder: str) -> None:
    assert not spool.is_locked(folder)
    directory = spool.take_lock(folder)
    assert directory is not None
    assert spool.is_locked(folder)
    assert spool.take_lock(folder) is None
    os.close(directory)
    assert not spool.is_locked(folder)


def test_who_only_looks_is_waited_for(folder: str) -> None:
    import fcntl  # noqa: PLC0415
    import threading  # noqa: PLC0415

    directory = os.open(folder, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_SH)
    threading.Timer(0.02, os.close, [directory]).start()
    taken = spool.take_lock(folder, patience_s=10)
    assert taken is not None
    os.close(taken)


def test_no_folder_no_lock(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        spool.take_lock(str(tmp_path / "gone"))


def test_a_record_that_cannot_be_made_durable_was_never_there(
    directory: int, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_fd: int, _data: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="full"):
        records.create_record_at(directory, "epoch", {"epoch": 1})
    assert os.listdir(folder) == []
