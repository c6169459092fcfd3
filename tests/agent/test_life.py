"""What an agent leaves behind for the next one."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from fleetwire.agent.life import NAME, LifeBook, Record, ending
from fleetwire.core.absences import Ending
from fleetwire.shim import oom


def book(state: Path, agent: str, *, boot: str = "b1", slept: float = 0.0) -> LifeBook:
    return LifeBook(
        str(state),
        agent=agent,
        boot_id=boot,
        slept=lambda: slept,
        wall=lambda: 7,
        monotonic=lambda: 1e12,  # nothing was killed since then
    )


def test_the_first_life_has_none_before_it(tmp_path: Path) -> None:
    life = book(tmp_path, "a1", slept=2.5).life()
    assert (life.agent, life.began, life.slept, life.before) == ("a1", 7, 2.5, None)


def test_a_clock_that_seems_to_run_back_is_no_sleep(tmp_path: Path) -> None:
    assert book(tmp_path, "a1", slept=-1e-7).life().slept == 0.0


def test_who_did_not_leave_has_died(tmp_path: Path) -> None:
    book(tmp_path, "a1")
    assert book(tmp_path, "a2").life().before == Ending("b1", left=False)


def test_who_left_says_so_over_a_reboot(tmp_path: Path) -> None:
    book(tmp_path, "a1").leave()
    assert book(tmp_path, "a2", boot="b2").life().before == Ending("b1", left=True)
    # And that says nothing of the one after it.
    assert book(tmp_path, "a3", boot="b3").life().before == Ending("b2", left=False)


@pytest.mark.parametrize("content", [b"", b"{", b'{"agent": 7}', b"\xff"])
def test_a_torn_file_says_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    assert book(tmp_path, "a1").life().before is None


def test_a_full_disk_ends_no_agent(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    lived = book(gone, "a1")
    lived.look()
    lived.leave()
    assert lived.life().agent == "a1"


def test_the_count_of_kills_is_noted_when_it_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = [3]
    monkeypatch.setattr(oom, "counter", lambda: "a file")
    monkeypatch.setattr(oom, "kills", lambda path: counted[0] if path else None)
    lived = book(tmp_path, "a1")
    written = (tmp_path / NAME).stat().st_ino
    lived.look()
    assert (tmp_path / NAME).stat().st_ino == written  # an idle agent writes nothing
    counted[0] = 5
    lived.look()
    assert msgspec.json.decode((tmp_path / NAME).read_bytes(), type=Record).kills == 5
    counted[0] = 6  # this one took the agent with it
    assert book(tmp_path, "a2").life().before == Ending("b1", oom_kills=1)


def test_the_kernels_log_convicts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oom, "victims", lambda since: {41} if since == 2.0 else set())
    before, now = Record("a1", "b1", 41, 2.0, 1), Record("a2", "b1", 42, 9.0, 2)
    assert ending(before, now) == Ending("b1", oom=True, oom_kills=1)
    # Another boot has another log, and other pids.
    assert ending(before, Record("a2", "b2", 42, 9.0, 0)) == Ending("b1")
