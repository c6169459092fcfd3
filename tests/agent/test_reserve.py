"""The node's reserve, on a disk that is as full as the test says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from fleetwire.agent.reserve import NAME, Reserve
from fleetwire.core.limits import KIB, NODE_RESERVE_BYTES

BLOCK = 4096


class Disk:
    """So much is free where the reserve holds nothing; what it holds is taken from it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.without = 1 << 30

    def fstatvfs(self, _: int) -> SimpleNamespace:
        return SimpleNamespace(
            f_bavail=self.free() // BLOCK, f_frsize=BLOCK, f_blocks=(1 << 30) // BLOCK
        )

    def free(self) -> int:
        return self.without - self.path.stat().st_size


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk(tmp_path / NAME)
    monkeypatch.setattr(os, "fstatvfs", disk.fstatvfs)
    return disk


@pytest.fixture
def reserve(disk: Disk, tmp_path: Path) -> Iterator[Reserve]:
    del disk
    reserve = Reserve(str(tmp_path))
    yield reserve
    reserve.close()


def test_it_is_held_in_real_blocks(reserve: Reserve, disk: Disk) -> None:
    del reserve
    facts = disk.path.stat()
    assert facts.st_size == NODE_RESERVE_BYTES <= facts.st_blocks * 512
    assert facts.st_mode & 0o777 == 0o600


def test_nothing_is_given_ahead_of_time(reserve: Reserve, disk: Disk) -> None:
    disk.without = NODE_RESERVE_BYTES
    reserve.take()
    assert disk.free() == 0


def test_a_step_is_given_for_one_write_and_the_rest_taken_again(
    reserve: Reserve, disk: Disk
) -> None:
    disk.without = NODE_RESERVE_BYTES
    with reserve.given():
        assert disk.free() == 64 * KIB
        disk.without -= 8 * KIB  # which the write took
    assert disk.free() == 0
    assert disk.path.stat().st_size == NODE_RESERVE_BYTES - 8 * KIB
    with pytest.raises(OSError, match="full"), reserve.given():
        raise OSError("full all the same")
    assert disk.free() == 0
    disk.without = 1 << 30
    reserve.take()
    assert disk.path.stat().st_size == NODE_RESERVE_BYTES


def test_what_is_used_up_gives_nothing(reserve: Reserve, disk: Disk) -> None:
    os.truncate(disk.path, 4 * KIB)
    disk.without = 4 * KIB
    with reserve.given():
        assert disk.path.stat().st_size == 0
        disk.without = 0
    with reserve.given():
        assert disk.free() == 0


def test_somebody_was_faster(reserve: Reserve, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    os.truncate(disk.path, 64 * KIB)

    def refused(_: int, __: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(reserve, "_allocate", refused)
    reserve.take()
    assert disk.path.stat().st_size == 64 * KIB
