"""`./dev faults`: results in a file, resumed by count, summed up; what is missing is not passed."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Self

import msgspec
import pytest

from fleetwire.testing import results
from fleetwire.testing.faults import kinds, runner, summary
from fleetwire.testing.faults.kinds import Kind
from fleetwire.testing.faults.rounds import Round
from fleetwire.testing.faults.stage import NotRun, Stage
from fleetwire.testing.simulation.runner import Batch, Broken


class NoSystem:
    """Stands for a system that nobody needs."""

    def __init__(self, folder: Path, _database: str | None) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "server.log").touch()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def clean(stage: Stage) -> None:
    """Break nothing."""
    stage.did("nothing", "nothing")


def broken(stage: Stage) -> None:
    """Break a promise."""
    stage.broken.append("P2 it started 2 times")


def failing(_stage: Stage) -> None:
    """Fail."""
    raise TimeoutError("in vain")


def fourth_is_last(stage: Stage) -> None:
    """Be touched when k is 1, 3 and 4."""
    if stage.k not in {1, 3, 4}:
        stage.measures["untouched"] = 1


def missing() -> None:
    raise NotRun("no tool")


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (
        Kind("clean", clean, system=NoSystem),  # type: ignore[arg-type]
        Kind("broken", broken, system=NoSystem),  # type: ignore[arg-type]
        Kind("failing", failing, system=NoSystem),  # type: ignore[arg-type]
        Kind("missing", clean, system=NoSystem, needs=missing),  # type: ignore[arg-type]
        Kind("every-k", fourth_is_last, system=NoSystem, enumerated=True),  # type: ignore[arg-type]
    ):
        monkeypatch.setitem(kinds.KINDS, kind.name, kind)


def play(file: Path, *words: str) -> tuple[int, list[Round]]:
    code = runner.main([*words, "--append", str(file), "--folder", str(file.parent)])
    return code, results.read(file, Round)


def test_rounds_are_appended_and_resumed_by_count(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    code, rounds = play(file, "--only", "clean", "--rounds", "2")
    assert (code, [(one.seed, one.verdict) for one in rounds]) == (
        0,
        [(0, "passed"), (1, "passed")],
    )
    assert rounds[0].faults == {"nothing": 1}
    with file.open("ab") as cut:
        cut.write(b'{"kind":"cl')  # the run was killed while it wrote
    assert results.read(file, Round) == rounds
    _, rounds = play(file, "--only", "clean", "--rounds", "5", "--resume")
    assert [one.seed for one in rounds] == [0, 1, 2, 3, 4]
    _, rounds = play(file, "--only", "clean", "--rounds", "5", "--resume")
    assert len(rounds) == 5


@pytest.mark.parametrize("kind", ["broken", "failing"])
def test_a_violation_is_told_and_its_system_kept(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, (one,) = play(tmp_path / "results.jsonl", "--only", kind)
    assert (code, one.verdict) == (1, "violated")
    said = capsys.readouterr().out
    assert f"again: ./dev faults --only {kind} --seed 0" in said
    (kept,) = [Path(line[6:]) for line in said.splitlines() if line.startswith("kept: ")]
    assert (kept / "server.log").exists()


def test_what_lacks_its_tool_is_not_run_and_not_passed(tmp_path: Path) -> None:
    code, (one,) = play(tmp_path / "results.jsonl", "--only", "missing", "--rounds", "9")
    assert (code, one.verdict, one.why) == (0, "not run", "no tool")


def test_every_k_is_played_until_nothing_is_touched_any_more(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    _, rounds = play(file, "--only", "every-k")
    assert [one.seed for one in rounds] == [1, 2, 3, 4, 5, 6, 7]
    _, again = play(file, "--only", "every-k", "--resume")
    assert again == rounds


def test_the_summary_counts_both_sorts_of_files(tmp_path: Path) -> None:
    faults, sim = tmp_path / "faults.jsonl", tmp_path / "sim.jsonl"
    for kind in ("clean", "broken", "missing"):
        play(faults, "--only", kind)
    batch = Batch(
        first=0, seeds=100, steps=5, virtual_s=7200.0, seconds=1.0, starts=9,
        faults={"crash": 3}, broken=(Broken(7, "P2"),),
    )  # fmt: skip
    results.append(sim, batch)
    results.append(sim, msgspec.structs.replace(batch, first=100))
    said = summary.markdown([faults, sim])
    assert "| broken | sqlite | 1 | 1 | 0 |" in said
    assert "| missing | sqlite | 0 | 0 | 1 |" in said
    assert "| 200 | 10 | 4 | 18 | 6 | 2 |" in said
    assert summary.markdown([]) == "The files hold no results."


def test_dev_faults_says_what_it_can(root: Path) -> None:
    shown = subprocess.run(
        [root / "dev", "faults", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert "--resume" in shown
    assert "./dev faults --only soak --for 1h" in shown
    for name in ("agent-kill", "network", "drop"):
        assert f"  {name} " in shown


@pytest.fixture
def root() -> Path:
    return Path(__file__).resolve().parents[2]
