"""The previous release, as a wheel built from the commit that CHANGELOG.md names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from fleetwire.testing.lab import Lab

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"^## (\d+\.\d+\.\d+) .*\n\nCommit `([0-9a-f]{40})`", re.MULTILINE)


class Release(NamedTuple):
    """An unpacked wheel. `env` lets a process of this Python run it instead of the checkout."""

    version: str
    folder: Path

    @property
    def env(self) -> dict[str, str]:
        return {"PYTHONPATH": str(self.folder)}


def git(*words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["git", *words],  # noqa: S607  # whichever git the user has
        cwd=ROOT,
        capture_output=True,
        check=False,
    )


def build(commit: str, folder: Path) -> None:
    """Build the commit's wheel, without its console, and unpack it into `folder`."""
    if git("cat-file", "-e", f"{commit}^{{commit}}").returncode:
        # A shallow clone has not the commit; its origin may.
        fetched = git("fetch", "--quiet", "--depth", "1", "origin", commit)
        if fetched.returncode:
            pytest.fail(
                f"This clone does not have {commit}, of which the previous release was made: "
                f"`git fetch --unshallow` gets it. {fetched.stderr.decode(errors='replace')}"
            )
    source = folder.with_name(f"{folder.name}.source")
    source.mkdir(parents=True, exist_ok=True)
    subprocess.run(["tar", "-x", "-C", source], input=git("archive", commit).stdout, check=True)  # noqa: S607
    wheels = folder.with_name(f"{folder.name}.wheel")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)],
        cwd=source,
        env={**os.environ, "FLEETWIRE_SKIP_CONSOLE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder)


@pytest.fixture(scope="session")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The newest release that has a commit to its name."""
    found = NAMED.search((ROOT / "CHANGELOG.md").read_text())
    assert found, "CHANGELOG.md names no commit of a release"
    folder = tmp_path_factory.mktemp("previous") / found[1]
    build(found[2], folder)
    return Release(found[1], folder)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path) as folder:
        yield folder
