"""The pump against a disk that is full for a while, or for good."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fleetwire.shim import spool
from fleetwire.shim.loop import Loop
from fleetwire.shim.pump import LOOK_AGAIN_S, Pump
from fleetwire.shim.writer import SpoolWriter

if TYPE_CHECKING:
    from tests.shim.conftest import Disk


class Rig:
    """A pump between a pipe and a folder; `now` is its clock."""

    def __init__(self, folder: Path, policy: str) -> None:
        self.folder = str(folder)
        self.directory = os.open(folder, os.O_RDONLY)
        self.loop = Loop()
        self.writer = SpoolWriter(self.directory, piece=1 << 20, quota=100_000)
        self.pump = Pump(self.loop, self.writer, policy, lambda: None)
        reader, self.task = os.pipe()
        os.set_blocking(reader, False)
        self.pump.add(reader, 1)
        self.now = 0.0

    def turn(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.loop.turn(0)
        self.pump.turn(self.now)

    def say(self, data: bytes) -> None:
        os.write(self.task, data)
        self.turn(1)

    def log(self) -> bytes:
        reader = spool.SpoolReader(self.folder)
        frames = reader.read(0, 1 << 20)
        reader.close()
        return b"".join(bytes(frame.payload) for frame in frames)

    def close(self) -> None:
        self.writer.close()
        self.loop.close()
        os.close(self.directory)


@pytest.fixture
def rig(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "block")
    yield rig
    rig.close()


@pytest.fixture
def disk(disk_of: type[Disk], monkeypatch: pytest.MonkeyPatch) -> None:
    return disk_of(monkeypatch, free=1 << 30)


def test_a_full_disk_stops_the_reading_and_loses_nothing(rig: Rig, disk: Disk) -> None:
    rig.say(b"before ")
    disk.free = 30
    rig.say(b"while it is full ")
    assert rig.pump.blocked
    rig.say(b"and later")
    assert rig.pump.wake_at() <= rig.now + LOOK_AGAIN_S
    assert rig.log() == b"before "
    disk.free = 1 << 30
    rig.turn(LOOK_AGAIN_S)
    assert not rig.pump.blocked
    rig.turn()
    assert rig.log() == b"before while it is full and later"
    os.close(rig.task)
    assert rig.pump.drain(force=False)


def test_a_full_disk_holds_the_end_back_until_it_is_given_up(rig: Rig, disk: Disk) -> None:
    rig.say(b"before ")
    disk.free = 0
    rig.say(b"lost ")
    os.write(rig.task, b"this too")
    os.close(rig.task)
    assert not rig.pump.drain(force=False)
    assert rig.pump.drain(force=True)
    assert rig.pump.lost == len(b"lost this too")
    assert rig.log() == b"before "
    assert rig.writer.length == len(b"before ")


def test_a_disk_that_fills_up_during_the_last_read(rig: Rig, disk: Disk) -> None:
    rig.say(b"before ")
    os.write(rig.task, b"the end")
    os.close(rig.task)
    disk.free = 0
    assert not rig.pump.drain(force=False)
    disk.free = 1 << 30
    assert rig.pump.drain(force=False)
    assert rig.log() == b"before the end"


def test_output_is_synced_once_a_second_while_it_grows(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., Any]
) -> None:
    synced = []
    monkeypatch.setattr("fleetwire.shim.writer._sync_data", synced.append)
    rig.say(b"one")
    at = rig.pump.wake_at()
    assert at - rig.now <= 0.5
    rig.turn(at - rig.now)
    wait_until(lambda: synced)
    assert not rig.writer.dirty
    os.close(rig.task)
    assert rig.pump.drain(force=False)


def test_what_is_dropped_at_the_very_end_is_told(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "drop")
    os.write(rig.task, b"x" * 50_000)
    rig.writer.quota = 10
    rig.turn()
    os.write(rig.task, b"y" * 5)
    os.close(rig.task)
    assert rig.pump.drain(force=False)
    assert rig.writer.length == 50_005
    reader = spool.SpoolReader(rig.folder)
    assert [frame.gap for frame in reader.read(0, 10)] == [50_005]
    reader.close()
    rig.close()
