"""Many worlds after each other: progress, failing seeds with their trace, results in a file.

    python -m fleetwire.testing.simulation --seeds 20000 --append results.jsonl --jobs 2
    python -m fleetwire.testing.simulation --seed 4711 --trace

A long run is resumable by count: a batch that is done stands in the file, one JSON line each, and
`--from N` goes on where the file ends (`--resume` reads N from it).
"""

from __future__ import annotations

import argparse
import gc
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from fleetwire.testing import results
from fleetwire.testing.results import say
from fleetwire.testing.simulation.installed import installed
from fleetwire.testing.simulation.plan import Plan, Story
from fleetwire.testing.simulation.world import World

BATCH: Final = 100
_TRACE_SHOWN: Final = 120


class Broken(msgspec.Struct, frozen=True):
    """A seed that showed a violation, with the end of its trace."""

    seed: int
    violation: str
    trace: tuple[str, ...] = ()


class Batch(msgspec.Struct, frozen=True):
    """What a batch of seeds, `first` to `first + seeds - 1`, came to."""

    first: int
    seeds: int
    steps: int
    virtual_s: float
    seconds: float
    starts: int
    faults: dict[str, int]
    broken: tuple[Broken, ...]


def play(seed: int, *, trace: int = _TRACE_SHOWN) -> Story:
    """Run one world of the usual plan, by itself."""
    with installed() as where:
        return World(seed, Plan.of(seed), where, trace=trace).run()


def play_batch(first: int, count: int) -> Batch:
    """Run the worlds of consecutive seeds."""
    began = time.process_time()
    steps, virtual_s, starts = 0, 0.0, 0
    faults: Counter[str] = Counter()
    broken: list[Broken] = []
    # Worlds are garbage all at once: looking for it within them is what costs.
    gc.disable()
    try:
        with installed() as where:
            for seed in range(first, first + count):
                story = World(seed, Plan.of(seed), where, trace=_TRACE_SHOWN).run()
                steps += story.steps
                virtual_s += story.virtual_s
                starts += story.starts
                faults.update(story.faults)
                if story.violation is not None:
                    broken.append(Broken(seed, story.violation, story.trace))
                if seed % 10 == 0:
                    gc.collect(1)
    finally:
        gc.enable()
    gc.collect()
    return Batch(
        first=first,
        seeds=count,
        steps=steps,
        virtual_s=round(virtual_s, 1),
        seconds=round(time.process_time() - began, 2),
        starts=starts,
        faults=dict(sorted(faults.items())),
        broken=tuple(broken),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run seeds as the command line says; return the exit code: 1 where a promise was broken."""
    options = _options(arguments)
    if options.seed is not None:
        story = play(options.seed, trace=100_000 if options.trace else _TRACE_SHOWN)
        _show(story.seed, story.violation, story.trace if options.trace or story.violation else ())
        return 1 if story.violation else 0
    first = options.first
    if options.resume and options.append is not None:
        first = max(first, _ended(options.append))
    return _play_all(first, options.seeds - (first - options.first), options.append, options.jobs)


def _play_all(first: int, seeds: int, append: Path | None, jobs: int) -> int:
    began, done, broken = time.monotonic(), 0, 0
    faults: Counter[str] = Counter()
    for batch in _batches(first, seeds, jobs):
        done += batch.seeds
        faults.update(batch.faults)
        if append is not None:
            kept = msgspec.structs.replace(
                batch, broken=tuple(Broken(one.seed, one.violation) for one in batch.broken)
            )
            results.append(append, kept)
        for one in batch.broken:
            broken += 1
            _show(one.seed, one.violation, one.trace)
        rate = done / (time.monotonic() - began)
        say(
            f"{done} of {seeds} seeds, {rate:.1f} a second, {sum(faults.values())} faults, "
            f"{broken} seeds with a violation"
        )
    return 1 if broken else 0


def _batches(first: int, seeds: int, jobs: int) -> Iterator[Batch]:
    starts = range(first, first + seeds, BATCH)
    counts = [min(BATCH, first + seeds - start) for start in starts]
    if jobs < 2:
        yield from map(play_batch, starts, counts)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(play_batch, starts, counts)


def _ended(path: Path) -> int:
    """Return the seed behind the last one that a file of results has."""
    batches = results.read(path, Batch)
    return max((batch.first + batch.seeds for batch in batches), default=0)


def _show(seed: int, violation: str | None, trace: Sequence[str]) -> None:
    for line in trace:
        say(line)
    say(f"seed {seed}: {violation or 'all promises were kept'}")
    if violation is not None:
        say(f"again: python -m fleetwire.testing.simulation --seed {seed} --trace")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m fleetwire.testing.simulation",
        description="Deterministic simulation of a server and its nodes under faults.",
    )
    parser.add_argument("--seeds", type=int, default=1000, help="how many worlds (1000)")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--append", type=Path, help="a file that gets one JSON line a batch")
    parser.add_argument("--resume", action="store_true", help="go on where the file ends")
    parser.add_argument("--jobs", type=int, default=1, help="processes (1)")
    parser.add_argument("--seed", type=int, help="play this one world")
    parser.add_argument("--trace", action="store_true", help="show what happens in it")
    return parser.parse_args(arguments)
