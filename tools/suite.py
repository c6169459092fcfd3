"""What `./dev test` and `./dev check` run, and how it is counted.

    python tools/suite.py test|check|chosen [PYTEST ARGUMENT ...]

Runs with the Python of .dev/venv and the environment that ./dev makes. The last line is plain and
alone, as in `1234 passed, 0 failed, 0 skipped`: it sums what the JUnit reports of all phases say,
and counts each check as one test. With CI set a skipped test is a failure.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPORTS = ROOT / ".dev/reports"
# Kills, floods and screens wait more than they compute: they run beside their like, and apart from
# what keeps both cores busy.
APART = "faults or browser"
# What depends on the database is tried again on the other one.
STORED = (
    *(f"tests/server/{room}" for room in ("store", "logs", "domain", "gateway", "loops")),
    "tests/server/api/test_runs.py",
    "tests/server/api/test_streams.py",
    "tests/server/test_two_processes.py",
)


@dataclass
class Tally:
    """Counts of all phases; `skips` names each skipped test with its reason."""

    passed: int = 0
    failed: int = 0
    skips: list[str] = field(default_factory=list)

    def count(self, report: Path, code: int) -> None:
        """Add a phase: its JUnit report, and its exit code where that says more."""
        before = self.failed
        cases = ET.parse(report).getroot().iter("testcase") if report.exists() else ()
        for case in cases:
            skipped = case.find("skipped")
            if case.find("failure") is not None or case.find("error") is not None:
                self.failed += 1
            elif skipped is not None:
                name = f"{case.get('classname')}.{case.get('name')}"
                self.skips.append(f"{name}: {skipped.get('message')}")
            else:
                self.passed += 1
        # It ended badly with no failed test to show for it: killed, wrong usage, nothing collected.
        if code and self.failed == before:
            print(f"ended with exit code {code} and no failed test in its report", flush=True)
            self.failed += 1

    def close(self, *, ci: bool) -> int:
        """Print the closing line; return the exit code."""
        refused = ci and bool(self.skips)
        if self.skips:
            print("\nskipped" + (", which is a failure because CI is set:" if refused else ":"))
            print("\n".join(f"  {skip}" for skip in self.skips))
        print(
            f"\n{self.passed} passed, {self.failed} failed, {len(self.skips)} skipped", flush=True
        )
        return 1 if self.failed or refused or not self.passed else 0


def check(tally: Tally, name: str, *argv: str) -> None:
    """Run one check, counted as one test; its output matters only when it fails."""
    started = time.monotonic()
    done = subprocess.run(
        argv, cwd=ROOT, text=True, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    verdict = "FAILED" if done.returncode else "ok"
    print(f"check: {name:<9} {verdict:<6} {time.monotonic() - started:5.1f} s", flush=True)
    if done.returncode:
        print(done.stdout, flush=True)
        tally.failed += 1
    else:
        tally.passed += 1


def checks(tally: Tally) -> None:
    """Run every check that needs no test run and no Node."""
    check(tally, "format", "ruff", "format", "--check", "--quiet", ".")
    check(tally, "lint", "ruff", "check", "--quiet", ".")
    check(tally, "types", "mypy")
    check(tally, "imports", "lint-imports", "--no-cache")
    check(tally, "spelling", "typos", "--quiet")


def phase(tally: Tally, name: str, *argv: str, report_option: str) -> None:
    """Run one phase of tests in the foreground and count its report."""
    print(f"\n== {name}", flush=True)
    report = REPORTS / f"{name}.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, *argv, f"{report_option}={report}"]
    tally.count(report, subprocess.run(command, cwd=ROOT, check=False).returncode)


def pytest(tally: Tally, name: str, *arguments: str) -> None:
    """Run pytest once and count it."""
    phase(tally, name, "-m", "pytest", "-q", *arguments, report_option="--junitxml")


def side_by_side(processes: int) -> tuple[str, ...]:
    """More processes than a small machine has cores, because most tests wait for other processes;
    the more, the less they compute. A file belongs to one process, and files keep their order,
    which tests/conftest.py gives them.
    """
    return ("-n", str(processes), "--dist", "loadfile", "--no-loadscope-reorder")


def console(tally: Tally) -> None:
    """Run the console's own checks: its types, its unit tests."""
    check(tally, "console", sys.executable, "tools/web.py", "types")
    argv = ["tools/web.py", "test", "--reporter=default", "--reporter=junit"]
    phase(tally, "console", *argv, report_option="--outputFile.junit")


def whole(tally: Tally) -> None:
    """Run everything, as CI does."""
    checks(tally)
    console(tally)
    pytest(tally, "tests", *side_by_side(3), "-m", f"not ({APART})")
    browserless = [] if shutil.which("chromium") else ["-p", "tools.no_browser"]
    pytest(tally, "apart", *side_by_side(4), "-m", APART, *browserless)
    pytest(tally, "postgres", *side_by_side(3), "--database", "postgres", *STORED)


def main(what: str, *arguments: str) -> int:
    """Run what was asked for; return the exit code."""
    # Where this was started in the background SIGINT is ignored, and that is inherited: the tests
    # of what Ctrl-C does need it as it is at a terminal.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    REPORTS.mkdir(parents=True, exist_ok=True)
    tally = Tally()
    if what == "test":
        whole(tally)
    elif what == "check":
        checks(tally)
        pytest(tally, "house", "tests/house")
    else:
        pytest(tally, "chosen", *arguments)
    return tally.close(ci=os.environ.get("CI", "").lower() in {"1", "true", "yes"})


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
