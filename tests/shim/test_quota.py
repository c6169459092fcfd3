"""The spool's quota and a full disk: block, drop, kill (promise P9)."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fleetwire.shim import control, spool
from fleetwire.shim.writer import MAX_APPEND, SpoolWriter

if TYPE_CHECKING:
    from tests.shim.conftest import Disk, Node, Placed

QUOTA = 256 * 1024
PIPE_AT_MOST = 1024 * 1024  # once there is much in it
# More than the quota and a pipe hold together.
WRITE_MUCH = """
import os
for i in range(4096): os.write(1, b"%07d\\n" % i * 128)
"""
MUCH = b"".join(b"%07d\n" % i * 128 for i in range(4096))


def stored(placed: Placed) -> int:
    return sum(
        os.stat(os.path.join(placed.folder, spool.piece_name(piece))).st_size
        for piece in spool.pieces(placed.folder)
    )


@pytest.mark.slow
def test_block_waits_for_the_server_and_loses_nothing(
    node: Node, wait_until: Callable[..., Any]
) -> None:
    placed = node.python(WRITE_MUCH, quota=QUOTA)
    placed.start()
    reader = spool.SpoolReader(placed.folder)
    log = b""
    while not placed.has("exit"):
        wait_until(lambda: placed.has("exit") or placed.blocked())
        if stored(placed) > QUOTA:
            # By what the pipe held when the task had ended: then the end is told at once.
            wait_until(lambda: placed.has("exit"))
            assert len(log) + QUOTA + PIPE_AT_MOST >= len(MUCH)
        while frames := reader.read(len(log), 1 << 20):
            log += b"".join(bytes(frame.payload) for frame in frames)
        reader.trim(len(log))
        with contextlib.suppress(control.ShimGone):
            placed.ask("trimmed")
    record = placed.wait()
    while frames := reader.read(len(log), 1 << 20):
        log += b"".join(bytes(frame.payload) for frame in frames)
    reader.close()
    assert log == MUCH
    assert record["length"] == len(MUCH)
    assert record["sha256"] == hashlib.sha256(MUCH).hexdigest()


@pytest.mark.slow
def test_block_goes_on_when_the_quota_grows(node: Node, wait_until: Callable[..., Any]) -> None:
    placed = node.python(WRITE_MUCH, quota=QUOTA)
    placed.start()
    wait_until(placed.blocked)
    assert placed.ask("quota", bytes=1 << 30)["ok"]
    assert placed.wait()["length"] == len(MUCH)
    assert placed.log() == MUCH


@pytest.mark.slow
def test_block_looks_again_by_itself(node: Node, wait_until: Callable[..., Any]) -> None:
    placed = node.python(WRITE_MUCH, quota=QUOTA)
    placed.start()
    reader = spool.SpoolReader(placed.folder)
    wait_until(lambda: reader.trim(reader.length()) >= 0 and placed.has("exit"))
    reader.close()
    assert placed.wait()["length"] == len(MUCH)


@pytest.mark.slow
def test_a_blocked_task_still_meets_its_deadline(node: Node) -> None:
    placed = node.python(WRITE_MUCH, quota=QUOTA, deadline_s=0.3, grace_s=0)
    placed.start()
    record = placed.wait()
    assert record["cause"] == "deadline"
    log = placed.log()
    assert MUCH.startswith(log)
    assert record["length"] == len(log)
    placed.check()


@pytest.mark.slow
def test_drop_tells_what_is_missing(node: Node) -> None:
    placed = node.python(WRITE_MUCH, quota=QUOTA, quota_policy="drop")
    record = placed.run()
    assert record["exit_code"] == 0
    assert record["length"] == len(MUCH)
    rebuilt = b""
    gaps = 0
    for frame in placed.frames():
        gaps += frame.gap
        rebuilt += bytes(frame.payload) if not frame.gap else b"\0" * frame.gap
    assert 0 < gaps < len(MUCH)
    assert all(a in {b, 0} for a, b in zip(rebuilt, MUCH, strict=True))
    assert stored(placed) <= QUOTA


@pytest.mark.slow
def test_kill_ends_the_task(node: Node) -> None:
    placed = node.python(WRITE_MUCH * 10, quota=QUOTA, quota_policy="kill", grace_s=0.2)
    record = placed.run()
    assert (record["cause"], record["signal"]) == ("quota", 15)
    assert placed.log() == MUCH[: len(placed.log())]
    assert stored(placed) <= QUOTA + 100


@pytest.fixture
def writer(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    writer = SpoolWriter(directory, piece=1 << 20, quota=1 << 30)
    yield writer
    writer.close()
    os.close(directory)


def contents(tmp_path: Path) -> bytes:
    reader = spool.SpoolReader(str(tmp_path))
    frames = reader.read(0, 1 << 20)
    reader.close()
    return b"".join(bytes(frame.payload) for frame in frames)


def test_a_full_disk_holds_the_rest_back(
    writer: SpoolWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk_of: type[Disk]
) -> None:
    disk = disk_of(monkeypatch, free=0)
    disk.free = 28 + 5 + 10
    assert not writer.append([(1, memoryview(b"whole")), (2, memoryview(b"torn"))])
    assert contents(tmp_path) == b"whole"
    assert not writer.append([(1, memoryview(b" later"))])
    assert writer.length == 0
    assert not writer.retry()
    disk.free = 1 << 20
    assert writer.retry()
    assert contents(tmp_path) == b"wholetorn later"
    assert writer.length == 15
    assert writer.digest() == hashlib.sha256(b"wholetorn later").hexdigest()


def test_what_a_full_disk_never_takes_is_given_up(
    writer: SpoolWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk_of: type[Disk]
) -> None:
    disk = disk_of(monkeypatch, free=0)
    disk.free = 28 + 5 + 10
    writer.append([(1, memoryview(b"whole")), (2, memoryview(b"torn"))])
    writer.append_gap(7)
    assert writer.abandon() == 11
    assert writer.length == 5
    assert writer.digest() == hashlib.sha256(b"whole").hexdigest()
    assert (tmp_path / spool.piece_name(0)).stat().st_size == 33
    disk.free = 1 << 20
    assert writer.append([(1, memoryview(b" more"))])
    assert contents(tmp_path) == b"whole more"


def test_another_error_of_the_disk_is_told(
    writer: SpoolWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_fd: int, _buffers: object) -> None:
        raise OSError(errno.EBADF, "broken")

    monkeypatch.setattr(os, "writev", broken)
    with pytest.raises(OSError, match="broken"):
        writer.append([(1, memoryview(b"x"))])
    writer.abandon()


def test_a_sync_that_fails_is_told_at_the_end(
    writer: SpoolWriter, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., Any]
) -> None:
    def broken(_fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("fleetwire.shim.writer._sync_data", broken)
    writer.append([(1, memoryview(b"x"))])
    assert writer.dirty
    writer.sync()
    wait_until(lambda: writer.error)
    assert "power loss" in writer.error
    assert not writer.dirty
    writer.sync()  # nothing new: does nothing


def test_the_room_holds_for_one_append(writer: SpoolWriter, tmp_path: Path) -> None:
    writer.quota = 100_000
    room = writer.room()
    assert room < 100_000
    half = room // 2
    assert writer.append([(1, memoryview(b"x" * half)), (2, memoryview(b"y" * (room - half)))])
    assert writer.stored_bytes <= 100_000
    assert MAX_APPEND == 1 << 20
    writer.roll()
    writer.roll()  # an empty piece stays
    assert spool.pieces(str(tmp_path)) == [0, room]
    os.unlink(tmp_path / spool.piece_name(0))
    writer.look()
    assert writer.stored_bytes == 0
