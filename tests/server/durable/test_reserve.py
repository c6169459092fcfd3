"""The reserve's file, on a disk that is as full as the test says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from fleetwire.core.limits import FLOOR_BYTES, MIB, RESERVE_BYTES
from fleetwire.server.durable import reserve as module
from fleetwire.server.durable.errors import StorageFull
from fleetwire.server.durable.reserve import Reserve

DISK = 100 * 1024 * MIB
BLOCK = 4096


class Disk:
    """So much is free where the reserve holds nothing; what it holds is taken from it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.without = DISK

    def fstatvfs(self, _: int) -> SimpleNamespace:
        left = self.without - self.path.stat().st_size
        return SimpleNamespace(f_bavail=left // BLOCK, f_frsize=BLOCK, f_blocks=DISK // BLOCK)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk(tmp_path / "reserve")
    monkeypatch.setattr(os, "fstatvfs", disk.fstatvfs)
    return disk


@pytest.fixture
def reserve(disk: Disk, tmp_path: Path) -> Iterator[Reserve]:
    del disk
    reserve = Reserve(tmp_path, monotonic=lambda: 0.0)
    yield reserve
    reserve.close()


def test_it_is_held_in_real_blocks(reserve: Reserve, disk: Disk) -> None:
    facts = disk.path.stat()
    assert facts.st_size == RESERVE_BYTES <= facts.st_blocks * 512
    assert facts.st_mode & 0o777 == 0o600
    assert reserve.has_room()
    reserve.check()


def test_below_the_floor_nothing_grows_and_the_reserve_is_whole(
    reserve: Reserve, disk: Disk
) -> None:
    disk.without = RESERVE_BYTES + FLOOR_BYTES - 1 * MIB
    reserve.look()
    assert disk.path.stat().st_size == RESERVE_BYTES
    with pytest.raises(StorageFull, match=r"63\.0 MiB are free, and new runs") as raised:
        reserve.check()
    assert str(disk.path.parent) in raised.value.hint


def test_it_is_given_away_bit_by_bit_and_taken_again(reserve: Reserve, disk: Disk) -> None:
    disk.without = RESERVE_BYTES
    assert reserve.look().held == RESERVE_BYTES - 2 * MIB
    disk.without = 5 * MIB
    assert reserve.look().held == 2 * MIB
    assert disk.path.stat().st_size == 2 * MIB
    assert "of which 2.0 of 16.0 MiB are left" in reserve.sentence()
    disk.without = 0
    assert reserve.look() == (0, False)
    disk.without = DISK
    assert reserve.look() == (RESERVE_BYTES, True)
    assert disk.path.stat().st_blocks * 512 >= RESERVE_BYTES


def test_who_asks_to_grow_makes_it_look_now_and_then(disk: Disk, tmp_path: Path) -> None:
    now = 0.0
    reserve = Reserve(tmp_path, monotonic=lambda: now)
    disk.without = 0
    reserve.check()  # it has just looked
    now = module.LOOK_S
    with pytest.raises(StorageFull):
        reserve.check()
    reserve.close()


def test_somebody_was_faster(reserve: Reserve, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    disk.without = 4 * MIB
    held = reserve.look().held
    disk.without = DISK

    def refused(_: int, __: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(reserve, "_allocate", refused)
    assert reserve.look() == (held, False)
    assert disk.path.stat().st_size == held


def test_the_next_start_finds_what_was_held(disk: Disk, tmp_path: Path) -> None:
    Reserve(tmp_path).close()
    disk.without = RESERVE_BYTES  # it was filled while nobody served
    reserve = Reserve(tmp_path)
    assert disk.path.stat().st_size == RESERVE_BYTES - 2 * MIB
    assert not reserve.has_room()
    reserve.close()
