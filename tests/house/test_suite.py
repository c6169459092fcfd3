"""The closing line of `./dev test` counts what really ran."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

TESTS = """
import os
import pytest

def test_passes():
    pass

def test_fails():
    assert False

@pytest.fixture
def broken():
    raise RuntimeError("no")

def test_has_an_error(broken):
    pass

@pytest.mark.skip(reason="not here")
def test_is_skipped():
    pass
"""


@pytest.fixture
def suite(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("suite_under_test", root / "tools/suite.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def run_pytest(folder: Path, text: str) -> tuple[Path, int]:
    """Run a test file of its own; return its JUnit report and the exit code."""
    (folder / "test_sample.py").write_text(text)
    report = folder / "report.xml"
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    bare = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [*argv, str(folder)], cwd=folder, env=bare, capture_output=True, check=False
    )
    return report, done.returncode


def test_counts_each_kind(
    suite: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tally = suite.Tally()
    tally.count(*run_pytest(tmp_path, TESTS))
    assert tally.close(ci=False) == 1
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == "1 passed, 2 failed, 1 skipped"
    assert "not here" in said


def test_phases_are_summed(suite: ModuleType, tmp_path: Path) -> None:
    tally = suite.Tally()
    report, code = run_pytest(tmp_path, "def test_passes(): pass\n")
    tally.count(report, code)
    tally.count(report, code)
    assert (tally.passed, tally.failed, tally.close(ci=True)) == (2, 0, 0)


def test_a_skip_is_a_failure_in_ci_only(suite: ModuleType, tmp_path: Path) -> None:
    tally = suite.Tally()
    text = "import pytest\ndef test_a(): pass\ndef test_b(): pytest.skip('no tool')\n"
    tally.count(*run_pytest(tmp_path, text))
    assert tally.close(ci=False) == 0
    assert tally.close(ci=True) == 1


@pytest.mark.parametrize(
    "text", ["import os, signal\ndef test_x(): os.kill(os.getpid(), signal.SIGKILL)\n", ""]
)
def test_a_run_without_a_result_is_a_failure(suite: ModuleType, tmp_path: Path, text: str) -> None:
    tally = suite.Tally()
    tally.count(*run_pytest(tmp_path, text))
    assert tally.failed == 1


def test_nothing_at_all_is_a_failure(suite: ModuleType) -> None:
    assert suite.Tally().close(ci=False) == 1
