"""bench/RESULTS.md and its JSON."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench.figures import Figure

EARLIER: Final = Path(__file__).with_name("compared")
"""Figures of two commits, kept to be shown beside each other."""


def facts() -> dict[str, Any]:
    """Return what a reader needs to judge the figures."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],  # noqa: S607  # whichever git the user has
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "commit": commit,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "durability": "SQLite WAL, synchronous=FULL",
    }


def as_json(figures: Sequence[Figure]) -> str:
    """Return everything as JSON."""
    return json.dumps({**facts(), "figures": [f.as_json() for f in figures]}, indent=2)


def as_markdown(figures: Sequence[Figure], command: str) -> str:
    """Return the page that is committed."""
    about = facts()
    lines = [
        "# Results",
        "",
        (
            f"Made by `{command}` at commit `{about['commit']}` on {about['date']}: "
            f"{about['cores']} cores shared by server, agents, tasks and load, "
            f"{about['memory_gib']} GiB, Linux {about['kernel']}, Python {about['python']}, "
            f"{about['durability']}. Absolute figures are noisy; the ratio to the bare machine, "
            "measured in the same run, is what counts (1.0 = as good as the bare machine)."
        ),
        "",
        "![How many times better than its must each figure is](RESULTS.svg)",
        "",
        "| measure | value | bare machine | ratio | must | aim | reached |",
        "|---|---|---|---|---|---|---|",
    ]
    for f in figures:
        bare = f"{f.bare:.3g} {f.unit} ({f.bare_what})" if f.bare is not None else ""
        ratio = f"{f.ratio:.2f}" if f.ratio is not None else ""
        lines.append(
            f"| {f.what} | **{f.value:.3g} {f.unit}** | {bare} | {ratio} "
            f"| {_target(f.must)} | {_target(f.aim)} | {f.verdict} |"
        )
    notes = [f"- {f.what}: {f.note}" for f in figures if f.note]
    earlier = [line for path in sorted(EARLIER.glob("*.json")) for line in _compared(path)]
    return "\n".join([*lines, *([""] if notes else []), *notes, *earlier, ""])


def _compared(path: Path) -> list[str]:
    """Return a section on two runs of `--json`, one right after the other, that were kept."""
    kept = json.loads(path.read_text())
    before, after = kept["before"], kept["after"]
    later = {each["what"]: each for each in after["figures"]}
    return [
        "",
        f"## {kept['title']}",
        "",
        (
            f"`{kept['command']}`, at commit `{before['commit']}` and right after it at "
            f"`{after['commit']}`, on {after['date']}."
        ),
        "",
        "| measure | before | after |",
        "|---|---|---|",
        *(
            f"| {each['what']} | {each['value']:.3g} {each['unit']} "
            f"| {later[each['what']]['value']:.3g} {each['unit']} |"
            for each in before["figures"]
            if each["what"] in later
        ),
    ]


def _target(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
