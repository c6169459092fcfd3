"""The command: rounds after each other, each judged, its result appended to a file.

Rounds of one kind share a system that stays up between them. Where a promise was broken the
system's folder (logs, books, spools, database) is kept, and the next round gets a fresh one.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from fleetwire.testing import results
from fleetwire.testing.faults import kinds, namespace, summary
from fleetwire.testing.faults.postgres import Cluster
from fleetwire.testing.faults.rounds import Round, Verdict
from fleetwire.testing.faults.stage import NotRun, Stage
from fleetwire.testing.faults.system import System
from fleetwire.testing.results import say
from fleetwire.testing.simulation.chance import Chance

_EXAMPLES: Final = """examples:
  ./dev faults --rounds 10                          ten rounds of each kind
  ./dev faults --only server-kill --rounds 100 --append kills.jsonl
  ./dev faults --only server-kill --rounds 100 --append kills.jsonl --resume
  ./dev faults --only all-kill --seed 4711          one round again, with its story
  ./dev faults --only crash-points-record           every k, until nothing is touched
  ./dev faults --only crash-points-queries --database postgres
  ./dev faults --only soak --for 1h --append soak.jsonl
  ./dev faults --summary kills.jsonl soak.jsonl     what the files say, as Markdown
"""
_UNTOUCHED: Final = 3
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}


class Theatre:
    """Where rounds are played: a system of each sort that is up, made when it is needed first."""

    def __init__(self, root: Path, cluster: Cluster | None, for_s: float) -> None:
        self.database = "postgres" if cluster else "sqlite"
        self._cluster = cluster
        self.for_s = for_s
        self._root = root
        self._up: tuple[str, System] | None = None
        self._made = 0
        self._kept = False

    def play(self, kind: kinds.Kind, seed: int) -> Round:
        """Play one round and judge it."""
        began = time.monotonic()
        chance = Chance(f"{kind.name} {seed}")
        stage = None
        try:
            kind.needs()
            if kind.database not in {"any", self.database}:
                raise NotRun(f"it is about {kind.database}, see --database")
            stage = Stage(
                self._system(kind), chance, f"{kind.name}-{seed}-{self._made}", self.for_s
            )
            stage.k = seed
            kind.play(stage)
        except NotRun as missing:
            return self._round(kind, seed, began, stage, "not run", str(missing))
        except Exception as failure:  # whatever it is, the round says so, and the rest goes on
            if stage is None:
                raise
            stage.broken.append(f"the round failed: {type(failure).__name__}: {failure}")
        verdict: Verdict = "violated" if stage.broken else "passed"
        if stage.broken:
            self.leave(keep=True)
        elif not kind.shared:
            self.leave()
        return self._round(kind, seed, began, stage, verdict)

    def leave(self, *, keep: bool = False) -> None:
        """End the system that is up; keep its folder, or not."""
        if self._up is not None:
            _, system = self._up
            self._up = None
            system.__exit__(None, None, None)
            if keep:
                self._kept = True
                say(f"kept: {system.folder}")
            else:
                shutil.rmtree(system.folder, ignore_errors=True)

    def close(self) -> None:
        """End everything."""
        self.leave()
        if not self._kept:
            shutil.rmtree(self._root, ignore_errors=True)

    def _system(self, kind: kinds.Kind) -> System:
        if self._up is None or self._up[0] != kind.setting:
            self.leave()
            self._made += 1
            folder = self._root / f"{kind.setting}-{self._made}"
            database = self._cluster.database() if self._cluster else None
            self._up = (kind.setting, kind.system(folder, database).__enter__())
        return self._up[1]

    def _round(
        self,
        kind: kinds.Kind,
        seed: int,
        began: float,
        stage: Stage | None,
        verdict: Verdict,
        why: str = "",
    ) -> Round:
        return Round(
            kind=kind.name,
            seed=seed,
            commit=commit(),
            database=self.database,
            seconds=round(time.monotonic() - began, 2),
            verdict=verdict,
            faults=dict(sorted(stage.faults.items())) if stage else {},
            outcomes=dict(sorted(stage.outcomes.items())) if stage else {},
            measures=stage.measures if stage else {},
            broken=tuple(stage.broken) if stage else (),
            story=tuple(stage.story) if stage else (),
            why=why,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Play rounds as the command line says; return the exit code: 1 where a promise was broken."""
    options = _options(arguments)
    if options.summary:
        say(summary.markdown(options.summary))
        return 0
    chosen = [kinds.KINDS[name] for name in options.only] or kinds.usual()
    if any(kind.apart for kind in chosen) and namespace.is_needed():
        return namespace.enter(sys.argv[1:] if arguments is None else arguments)
    namespace.set_up()
    done = _done(options.append) if options.resume and options.append else []
    root = Path(tempfile.mkdtemp(prefix="fleetwire-faults-", dir=options.folder))
    with contextlib.ExitStack() as exits:
        postgres = options.database == "postgres"
        cluster = exits.enter_context(Cluster()) if postgres else None
        theatre = Theatre(root, cluster, options.for_s)
        exits.callback(theatre.close)
        return _play_all(theatre, chosen, options, done)


def _play_all(
    theatre: Theatre,
    chosen: Sequence[kinds.Kind],
    options: argparse.Namespace,
    done: Sequence[Round],
) -> int:
    began, played = time.monotonic(), 0
    faults: Counter[str] = Counter()
    verdicts: Counter[str] = Counter()
    for kind in chosen:
        mine = [one for one in done if one.kind == kind.name]
        for seed in _seeds(kind, options, tuple(mine)):
            result = theatre.play(kind, seed)
            played += 1
            faults.update(result.faults)
            verdicts[result.verdict] += 1
            if options.append is not None:
                results.append(options.append, result)
            _tell(result, whole=options.seed is not None)
            minutes = (time.monotonic() - began) / 60
            say(
                f"{played} rounds, {played / minutes:.1f} a minute, {_counted(faults)}; "
                f"{verdicts['violated']} with a violation, {verdicts['not run']} not run"
            )
            mine.append(result)
            if _is_over(kind, mine):
                break
    return 1 if verdicts["violated"] else 0


def _tell(result: Round, *, whole: bool) -> None:
    if result.verdict == "violated" or whole:
        for line in (*result.story, *result.broken):
            say(f"  {line}")
    why = f" ({result.why})" if result.why else ""
    say(f"{result.kind} {result.seed}: {result.verdict} in {result.seconds:.1f} s{why}")
    if result.verdict == "violated":
        say(f"again: ./dev faults --only {result.kind} --seed {result.seed}")


def _seeds(kind: kinds.Kind, options: argparse.Namespace, done: Sequence[Round]) -> Iterable[int]:
    """Return the seeds of a kind that are to be played; of crash points they are the k."""
    if options.seed is not None:
        return [options.seed]
    if _is_over(kind, done):
        return []
    first = options.first + (1 if kind.enumerated and not options.first else 0)
    count = options.rounds or (1_000_000 if kind.enumerated else 1)
    return range(first + len(done), first + count)


def _is_over(kind: kinds.Kind, rounds: Sequence[Round]) -> bool:
    """Say whether no further round of the kind is of use: a tool is missing, or all k are done.

    How many calls a process makes varies a little with the clock, so one round that was not
    touched proves nothing: it takes several in a row.
    """
    if rounds and rounds[-1].verdict == "not run":
        return True
    last = rounds[-_UNTOUCHED:]
    return (
        kind.enumerated
        and len(last) == _UNTOUCHED
        and all("untouched" in one.measures for one in last)
    )


def _done(path: Path) -> list[Round]:
    """Return the rounds of a file, without those that were not run."""
    return [one for one in results.read(path, Round) if one.verdict != "not run"]


def _counted(faults: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(faults.items())) or "no faults"


def commit() -> str:
    """Return the commit of this checkout, "" outside one; "+" behind it says: with changes."""
    here = Path(__file__).parent
    said = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--exclude=*"],  # noqa: S607 (git is where it is)
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
    )
    return said.stdout.strip()


def _seconds(text: str) -> float:
    unit = _UNITS.get(text[-1:])
    number = float(text[:-1] if unit else text) * (unit or 1.0)
    if number <= 0:
        raise ValueError(text)
    return number


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m fleetwire.testing.faults",
        description="Real servers, agents and tasks under faults, judged from outside.",
        epilog=_EXAMPLES + "\nkinds:\n" + kinds.listed(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="of each kind (1; all k)")
    parser.add_argument(
        "--only", action="append", default=[], choices=sorted(kinds.KINDS), metavar="KIND",
        help="play this kind; may be repeated (all but soak)",
    )  # fmt: skip
    parser.add_argument("--from", dest="first", type=int, default=0, metavar="N", help="first seed")
    parser.add_argument("--seed", type=int, metavar="N", help="play this one round, tell its story")
    parser.add_argument("--append", type=Path, metavar="FILE", help="gets one JSON line a round")
    parser.add_argument("--resume", action="store_true", help="go on where that file ends")
    parser.add_argument(
        "--for", dest="for_s", type=_seconds, default=60.0, metavar="TIME",
        help="how long a soak lasts: 90s, 10m, 1h (60s)",
    )  # fmt: skip
    parser.add_argument(
        "--database", choices=("sqlite", "postgres"), default="sqlite", help="(sqlite)"
    )
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where systems are put (/tmp)")
    parser.add_argument(
        "--summary", nargs="+", type=Path, metavar="FILE",
        help="print what such files, and those of ./dev sim, say: a table in Markdown",
    )  # fmt: skip
    return parser.parse_args(arguments)
