"""What files of results say, as tables in Markdown: of `./dev faults` and of `./dev sim`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from fleetwire.testing import results
from fleetwire.testing.faults.rounds import Round
from fleetwire.testing.simulation.runner import Batch

_MIB: Final = 1 << 20


def markdown(files: Iterable[Path]) -> str:
    """Return the tables; a kind that was never run is not in them."""
    rounds: list[Round] = []
    batches: list[Batch] = []
    for path in files:
        for line in results.read(path, msgspec.Raw):
            if b'"kind"' in bytes(line):
                rounds.append(msgspec.json.decode(line, type=Round))
            else:
                batches.append(msgspec.json.decode(line, type=Batch))
    tables = [_of_rounds(rounds)] if rounds else []
    if batches:
        tables.append(_of_batches(batches))
    return "\n\n".join(tables) or "The files hold no results."


def _of_rounds(rounds: Sequence[Round]) -> str:
    lines = [
        "| kind | database | rounds | violated | not run | attempts | output, MiB | faults |",
        "|---|---|--:|--:|--:|--:|--:|---|",
    ]
    faults: Counter[str] = Counter()
    for kind, database in sorted({(one.kind, one.database) for one in rounds}):
        those = [one for one in rounds if (one.kind, one.database) == (kind, database)]
        total: Counter[str] = Counter()
        outcomes: Counter[str] = Counter()
        for one in those:
            total.update(one.faults)
            outcomes.update(one.outcomes)
        faults.update(total)
        size = outcomes.pop("bytes", 0) / _MIB
        verdicts = Counter(one.verdict for one in those)
        done = ", ".join(f"{count} {name}" for name, count in sorted(total.items()))
        counts = (len(those) - verdicts["not run"], verdicts["violated"], verdicts["not run"])
        cells = (kind, database, *counts, outcomes.total(), f"{size:.0f}", done)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    every = ", ".join(f"{count} {name}" for name, count in sorted(faults.items()))
    commits = sorted({one.commit for one in rounds} - {""})
    return "\n".join([*lines, "", f"Together: {every}. Commits: {', '.join(commits)}."])


def _of_batches(batches: Sequence[Batch]) -> str:
    faults: Counter[str] = Counter()
    for batch in batches:
        faults.update(batch.faults)
    broken = [one for batch in batches for one in batch.broken]
    seeds = {seed for one in batches for seed in range(one.first, one.first + one.seeds)}
    hours = sum(one.virtual_s for one in batches) / 3600
    steps, starts = sum(one.steps for one in batches), sum(one.starts for one in batches)
    cells = (len(seeds), steps, f"{hours:.0f}", starts, faults.total(), len(broken))
    lines = [
        "| simulated seeds | steps | virtual hours | starts | faults | seeds with a violation |",
        "|--:|--:|--:|--:|--:|--:|",
        f"| {' | '.join(map(str, cells))} |",
    ]
    return "\n".join(lines)
