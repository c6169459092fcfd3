"""`./dev bench`: measures, prints a table, writes bench/RESULTS.md."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import (
    chart,
    footprint,
    latency,
    node,
    report,
    scale,
    simulated,
    stored,
    throughput,
    viewer,
)
from bench.figures import Figure
from fleetwire.testing.lab import Lab

GROUPS: dict[str, Callable[[Lab], Iterator[Figure]]] = {
    "latency": latency.measure,
    "throughput": throughput.measure_one_agent,
    "three-agents": throughput.measure_three_agents,
    "node": node.measure,
    "fan-out": throughput.measure_fan_out,
    "simulated": simulated.measure,
    "footprint": footprint.measure,
    "viewer": viewer.measure,
    "scale": scale.measure,
}
LONG: dict[str, Callable[[Lab], Iterator[Figure]]] = {
    "scale-10000": scale.measure_long,
    "stored": stored.measure,
}
"""Groups that take minutes: only with --long, or by name."""


def main() -> int:
    """Run the chosen groups, each in a fresh system of its own."""
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=[*GROUPS, *LONG], help="one group; repeatable"
    )
    parser.add_argument(
        "--long", action="store_true", help="10,000 simulated agents and 1,000,000 runs as well"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    figures: list[Figure] = []
    groups = GROUPS | LONG
    for name in options.only or (groups if options.long else GROUPS):
        with (
            tempfile.TemporaryDirectory(prefix=f"fleetwire-bench-{name}-") as folder,
            Lab(Path(folder)) as lab,
        ):
            lab.start_server()
            for figure in groups[name](lab):
                figures.append(figure)
                bare = f", bare {figure.bare:.3g}" if figure.bare is not None else ""
                sys.stderr.write(
                    f"{figure.what}: {figure.value:.3g} {figure.unit}{bare}  {figure.verdict}\n"
                )
    if options.json:
        sys.stdout.write(report.as_json(figures) + "\n")
    elif not options.only:
        page = Path(__file__).with_name("RESULTS.md")
        page.write_text(report.as_markdown(figures, "./dev bench"))
        page.with_suffix(".svg").write_text(chart.as_svg(figures))
        sys.stderr.write(f"written to {page.name} and its picture\n")
    return 1 if any(figure.verdict == "SHORT" for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
